#include "cgroup.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "support/temp_dir.h"

namespace {

using namespace qllm::cpu;

std::vector<std::string> paths(const std::vector<CgroupDir>& dirs) {
  std::vector<std::string> out;
  for (const CgroupDir& dir : dirs) out.push_back((dir.v2 ? "2:" : "1:") + dir.path);
  return out;
}

void write(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

using Paths = std::vector<std::string>;

TEST_CASE("cgroup: cpu.max gives CPUs, max and nonsense nothing") {
  CHECK(parse_cpu_max("150000 100000\n") == 1.5);
  CHECK(parse_cpu_max("50000 100000") == 0.5);
  for (const char* none : {"max 100000\n", "", "\n", "100000", "0 100000", "-1 100000", "100000 0",
                           "1 2 3", "1x 2", "99999999999999999999 1"}) {
    CAPTURE(none);
    CHECK_FALSE(parse_cpu_max(none).has_value());
  }
}

TEST_CASE("cgroup: version 1 quota and period") {
  CHECK(parse_cfs("250000\n", "100000\n") == 2.5);
  CHECK_FALSE(parse_cfs("-1\n", "100000\n").has_value());
  CHECK_FALSE(parse_cfs("100000", "").has_value());
}

TEST_CASE("cgroup: version 2 directories go from the group up to the mount") {
  const auto dirs =
      cgroup_dirs("0::/user.slice/app.scope\n",
                  "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw\n");
  CHECK(paths(dirs) == Paths{"2:/sys/fs/cgroup/user.slice/app.scope", "2:/sys/fs/cgroup/user.slice",
                             "2:/sys/fs/cgroup"});
}

TEST_CASE("cgroup: version 1 takes the hierarchy with the cpu controller, not cpuset or cpuacct") {
  const auto dirs = cgroup_dirs("5:cpuset:/a\n4:cpu,cpuacct:/b\n3:cpuacct:/c\n0::/\n",
                                "1 0 0:1 / /cg/cpuset rw - cgroup cgroup rw,cpuset\n"
                                "2 0 0:2 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
  CHECK(paths(dirs) == Paths{"1:/cg/cpu,cpuacct/b", "1:/cg/cpu,cpuacct"});
}

TEST_CASE("cgroup: a container's mount starts at its own group") {
  const char* mount = "2 0 0:2 /docker/abc /cg/cpu rw - cgroup cgroup rw,cpu\n";
  CHECK(paths(cgroup_dirs("4:cpu:/docker/abc\n", mount)) == Paths{"1:/cg/cpu"});
  CHECK(paths(cgroup_dirs("4:cpu:/docker/abc/inner\n", mount)) ==
        Paths{"1:/cg/cpu/inner", "1:/cg/cpu"});
  CHECK(paths(cgroup_dirs("0::/../other\n", "1 0 0:1 / /cg rw - cgroup2 x rw\n")) ==
        Paths{"2:/cg"});
}

TEST_CASE("cgroup: malformed lines are passed over") {
  CHECK(cgroup_dirs("", "").empty());
  CHECK(cgroup_dirs("garbage\n1:\n::\n", "a b - cgroup2\n - \n1 2 3 4 5 6 - cgroup2\n").empty());
}

TEST_CASE("cgroup: the tightest quota on the way up wins") {
  const qllm::test::TempDir dir;
  write(dir.path() / "proc/self/cgroup", "0::/a/b\n");
  write(dir.path() / "proc/self/mountinfo", "1 0 0:1 / /cg rw - cgroup2 x rw\n");
  write(dir.path() / "cg/a/b/cpu.max", "400000 100000\n");
  write(dir.path() / "cg/a/cpu.max", "150000 100000\n");
  write(dir.path() / "cg/cpu.max", "max 100000\n");
  const auto quota = read_cpu_quota(dir.path().string());
  REQUIRE(quota.has_value());
  CHECK(quota->cpus == 1.5);
  CHECK(quota->source == "/cg/a/cpu.max");
  std::filesystem::remove(dir.path() / "cg/a/cpu.max");
  CHECK(read_cpu_quota(dir.path().string())->cpus == 4.0);
  std::filesystem::remove(dir.path() / "cg/a/b/cpu.max");
  CHECK_FALSE(read_cpu_quota(dir.path().string()).has_value());
}

TEST_CASE("cgroup: version 1 files are read") {
  const qllm::test::TempDir dir;
  write(dir.path() / "proc/self/cgroup", "1:cpu:/\n");
  write(dir.path() / "proc/self/mountinfo", "1 0 0:1 / /cg rw - cgroup x rw,cpu\n");
  write(dir.path() / "cg/cpu.cfs_quota_us", "300000\n");
  write(dir.path() / "cg/cpu.cfs_period_us", "100000\n");
  CHECK(read_cpu_quota(dir.path().string())->cpus == 3.0);
}

TEST_CASE("cgroup: no proc file system, no quota") {
  const qllm::test::TempDir dir;
  CHECK_FALSE(read_cpu_quota(dir.path().string()).has_value());
}

}  // namespace
