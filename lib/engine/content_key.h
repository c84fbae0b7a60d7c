// What a file holds, in 64 bits, without reading it twice.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace qllm {

/// A checksum of all bytes and their number, read by a few threads at once. `go_on` is asked now
/// and then from the calling thread. Throws not_found, io; cancelled where `go_on` says no.
uint64_t content_key(const std::string& path, const std::function<bool(double)>& go_on = {});

/// The same, remembered in `folder` under device, inode, size and times of the file: a file that
/// was not touched since is not read again. One changed in the last two seconds is not remembered
/// (its times might not show the next change). A memory that cannot be read or written is none.
uint64_t remembered_content_key(const std::string& path, const std::string& folder,
                                const std::function<bool(double)>& go_on = {});

}  // namespace qllm
