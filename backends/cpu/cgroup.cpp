#include "cgroup.h"

#include <charconv>
#include <fstream>
#include <sstream>

namespace qllm::cpu {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    size_t end = text.find(separator, begin);
    if (end == std::string_view::npos) end = text.size();
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

std::optional<double> quotient(std::string_view quota, std::string_view period) {
  const auto number = [](std::string_view text) -> int64_t {
    int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    return error == std::errc() && stop == end ? value : -1;
  };
  const int64_t used = number(trim(quota));
  const int64_t of = number(trim(period));
  if (used <= 0 || of <= 0) return std::nullopt;
  return static_cast<double>(used) / static_cast<double>(of);
}

bool lists(std::string_view names, std::string_view name) {
  for (std::string_view part : split(names, ',')) {
    if (part == name) return true;
  }
  return false;
}

struct Membership {
  std::string v1;  // path of the "cpu" hierarchy, empty: none
  std::string v2;
};

// Lines of /proc/self/cgroup: "id:controllers:path"; version 2 is "0::path".
Membership parse_membership(std::string_view text) {
  Membership found;
  for (std::string_view line : split(text, '\n')) {
    const size_t first = line.find(':');
    if (first == std::string_view::npos) continue;
    const size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view path = line.substr(second + 1);
    if (controllers.empty()) found.v2 = path;
    if (lists(controllers, "cpu")) found.v1 = path;
  }
  return found;
}

// The group's directory below a mount point whose root is the group `root`, then its parents.
void append_upwards(std::string_view mount, std::string_view root, std::string_view group, bool v2,
                    std::vector<CgroupDir>* dirs) {
  // A container may see its group under the host's name while the mount starts at that group.
  if (root != "/" && group.substr(0, root.size()) == root) group.remove_prefix(root.size());
  std::string relative(group == "/" ? std::string_view() : group);
  // ".." is how a group above the namespace's root shows: only the mount point can be read then.
  if (relative.find("..") != std::string::npos) relative.clear();
  while (true) {
    dirs->push_back({std::string(mount) + relative, v2});
    const size_t slash = relative.rfind('/');
    if (slash == std::string::npos) return;
    relative.resize(slash);
  }
}

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

std::optional<CpuQuota> quota_of(const std::string& root, const CgroupDir& dir) {
  const std::string source = dir.path + (dir.v2 ? "/cpu.max" : "/cpu.cfs_quota_us");
  const auto text = read_file(root + source);
  if (!text) return std::nullopt;
  std::optional<double> cpus;
  if (dir.v2) {
    cpus = parse_cpu_max(*text);
  } else {
    cpus = parse_cfs(*text, read_file(root + dir.path + "/cpu.cfs_period_us").value_or(""));
  }
  if (!cpus) return std::nullopt;
  return CpuQuota{*cpus, source};
}

}  // namespace

std::optional<double> parse_cpu_max(std::string_view text) {
  const auto parts = split(trim(text), ' ');
  if (parts.size() != 2) return std::nullopt;
  return quotient(parts[0], parts[1]);
}

std::optional<double> parse_cfs(std::string_view quota_us, std::string_view period_us) {
  return quotient(quota_us, period_us);
}

std::vector<CgroupDir> cgroup_dirs(std::string_view cgroup, std::string_view mountinfo) {
  const Membership group = parse_membership(cgroup);
  std::vector<CgroupDir> dirs;
  for (std::string_view line : split(mountinfo, '\n')) {
    // "id parent major:minor root mount-point options [tags] - type source super-options"
    const size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    const auto left = split(line.substr(0, dash), ' ');
    const auto right = split(line.substr(dash + 3), ' ');
    if (left.size() < 6 || right.size() < 3) continue;
    if (right[0] == "cgroup2" && !group.v2.empty()) {
      append_upwards(left[4], left[3], group.v2, true, &dirs);
    } else if (right[0] == "cgroup" && !group.v1.empty() && lists(right[2], "cpu")) {
      append_upwards(left[4], left[3], group.v1, false, &dirs);
    }
  }
  return dirs;
}

std::optional<CpuQuota> read_cpu_quota(const std::string& root) {
  const auto cgroup = read_file(root + "/proc/self/cgroup");
  const auto mountinfo = read_file(root + "/proc/self/mountinfo");
  if (!cgroup || !mountinfo) return std::nullopt;
  std::optional<CpuQuota> tightest;
  for (const CgroupDir& dir : cgroup_dirs(*cgroup, *mountinfo)) {
    auto quota = quota_of(root, dir);
    if (quota && (!tightest || quota->cpus < tightest->cpus)) tightest = std::move(quota);
  }
  return tightest;
}

}  // namespace qllm::cpu
