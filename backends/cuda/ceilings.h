// What the device can do at best, measured: what runs are compared with.
#pragma once

#include "cuda_device.h"
#include "lt_gemm.h"

namespace qllm::cuda {

/// GB/s (1e9) of kernels that read `bytes` of the device's memory once; the best of a few. 0 where
/// there is no memory for it.
double measure_read_gbps(int64_t bytes, const DeviceInfo& device, const Stream& stream);

/// 1e12 operations a second of cuBLASLt's product of two square matrices, a multiply-add being two.
double measure_gemm_tops(GemmKind kind, const DeviceInfo& device, const Stream& stream);

/// GB/s of a copy from page-locked memory of the host.
double measure_upload_gbps(const Stream& stream);

}  // namespace qllm::cuda
