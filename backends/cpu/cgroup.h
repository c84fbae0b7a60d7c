// The CPU quota of the control group that the process lives in: version 2 (cpu.max) and 1 (cfs).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qllm::cpu {

/// How much CPU time the group may use.
struct CpuQuota {
  double cpus = 0;     // quota / period, in CPUs
  std::string source;  // the file that says so
};

/// A directory that may hold a quota, from the process's own group up to the mount point.
struct CgroupDir {
  std::string path;
  bool v2 = false;
};

/// CPUs of a version 2 `cpu.max` ("150000 100000"); nothing for "max ..." and for malformed text.
std::optional<double> parse_cpu_max(std::string_view text);

/// CPUs of version 1's cpu.cfs_quota_us and cpu.cfs_period_us; nothing for a quota of -1.
std::optional<double> parse_cfs(std::string_view quota_us, std::string_view period_us);

/// Directories to ask, from the texts of /proc/self/cgroup and /proc/self/mountinfo.
std::vector<CgroupDir> cgroup_dirs(std::string_view cgroup, std::string_view mountinfo);

/// The tightest quota on the way up; nothing where there is none or it cannot be read. `root` is
/// put before every path (tests).
std::optional<CpuQuota> read_cpu_quota(const std::string& root = "");

}  // namespace qllm::cpu
