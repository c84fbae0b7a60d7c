#include "topology.h"

#include <doctest/doctest.h>
#include <hwloc.h>
#include <sched.h>

#include <functional>
#include <set>
#include <string>
#include <thread>

#include "core/error.h"
#include "support/temp_dir.h"

namespace {

using namespace qllm::cpu;

std::vector<int> cpus(const Topology& topology) {
  std::vector<int> out;
  for (const WorkerSlot& slot : topology.workers()) out.push_back(slot.cpu);
  return out;
}

std::vector<int> nodes(const Topology& topology) {
  std::vector<int> out;
  for (const WorkerSlot& slot : topology.workers()) out.push_back(slot.numa_node);
  return out;
}

std::unique_ptr<Topology> synthetic(const std::string& machine, int threads = 0,
                                    const std::string& list = "") {
  return Topology::detect({threads, list, machine});
}

// An XML file of a synthetic machine after a change that the description has no words for.
std::string altered_xml(const qllm::test::TempDir& dir, const char* machine,
                        const std::function<void(hwloc_topology_t)>& alter) {
  hwloc_topology_t topology = nullptr;
  REQUIRE(hwloc_topology_init(&topology) == 0);
  REQUIRE(hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) == 0);
  REQUIRE(hwloc_topology_set_synthetic(topology, machine) == 0);
  REQUIRE(hwloc_topology_load(topology) == 0);
  alter(topology);
  std::string path = (dir.path() / "machine.xml").string();
  REQUIRE(hwloc_topology_export_xml(topology, path.c_str(), 0) == 0);
  hwloc_topology_destroy(topology);
  return path;
}

bool has_note(const Topology& topology, const std::string& word) {
  for (const std::string& note : topology.notes()) {
    if (note.find(word) != std::string::npos) return true;
  }
  return false;
}

constexpr const char* kTwoNodes =
    "package:2 [numa(memory=1GiB)] l3:1(size=32MiB) core:4 l2:1(size=1MiB) pu:2";
constexpr const char* kEightNodes = "package:2 group:4 [numa(memory=1GiB)] core:2 pu:1";

TEST_CASE("topology: this machine has a worker and pins it") {
  const auto topology = Topology::detect({});
  REQUIRE_FALSE(topology->workers().empty());
  CHECK(topology->cores() >= 1);
  CHECK(topology->cores() <= topology->allowed_cpus());
  CHECK(static_cast<int>(topology->workers().size()) <= topology->cores());
  std::thread([&] {
    const WorkerSlot slot = topology->workers().back();
    REQUIRE(topology->pin(slot));
    cpu_set_t set;
    REQUIRE(sched_getaffinity(0, sizeof(set), &set) == 0);
    CHECK(CPU_COUNT(&set) == 1);
    CHECK(CPU_ISSET(slot.cpu, &set));
    // What this thread may use is what the process may: a pinned caller changes nothing.
    CHECK(Topology::detect({})->workers().size() == topology->workers().size());
  }).join();
}

TEST_CASE("topology: two nodes with SMT give one worker per core, grouped by node") {
  const auto topology = synthetic(kTwoNodes);
  CHECK(topology->packages() == 2);
  CHECK(topology->numa_nodes() == 2);
  CHECK(topology->cores() == 8);
  CHECK(topology->allowed_cpus() == 16);
  CHECK(topology->l2_bytes() == 1 << 20);
  CHECK(topology->l3_bytes() == 32 << 20);
  CHECK(cpus(*topology) == std::vector<int>{0, 2, 4, 6, 8, 10, 12, 14});
  CHECK(nodes(*topology) == std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1});
  CHECK(topology->notes().empty());
}

TEST_CASE("topology: fewer threads than cores are shared equally by the nodes") {
  CHECK(cpus(*synthetic(kTwoNodes, 4)) == std::vector<int>{0, 2, 8, 10});
  CHECK(nodes(*synthetic(kTwoNodes, 3)) == std::vector<int>{0, 0, 1});
  CHECK(nodes(*synthetic(kEightNodes, 8)) == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7});
}

TEST_CASE("topology: more threads than cores take siblings, then repeat") {
  CHECK(cpus(*synthetic(kTwoNodes, 10)) == std::vector<int>{0, 1, 2, 4, 6, 8, 9, 10, 12, 14});
  const auto topology = synthetic("core:2 pu:1", 5);
  CHECK(cpus(*topology) == std::vector<int>{0, 1, 0, 1, 0});
  CHECK(has_note(*topology, "oversubscribed: 5 threads on 2 CPUs"));
}

TEST_CASE("topology: eight nodes") {
  const auto places = synthetic(kEightNodes)->memory_places();
  REQUIRE(places.size() == 8);
  for (int i = 0; i < 8; ++i) {
    CHECK(places[static_cast<size_t>(i)].node == i);
    CHECK(places[static_cast<size_t>(i)].package == i / 4);
  }
  const auto topology = synthetic(kEightNodes);
  CHECK(topology->numa_nodes() == 8);
  CHECK(topology->cores() == 16);
  CHECK(nodes(*topology) == std::vector<int>{0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7});
}

TEST_CASE("topology: a list restricts CPUs, cores and nodes") {
  const auto topology = synthetic(kTwoNodes, 0, "0-3,9,12");
  CHECK(cpus(*topology) == std::vector<int>{0, 2, 9, 12});
  CHECK(nodes(*topology) == std::vector<int>{0, 0, 1, 1});
  CHECK(topology->cores() == 4);
  CHECK(topology->allowed_cpus() == 6);
  CHECK_THROWS_WITH_AS(synthetic(kTwoNodes, 0, "0,16"),
                       "CPU list: CPU 16 of \"0,16\" is not among those that this process may use",
                       qllm::Error);
}

TEST_CASE("topology: a cpuset that hides half of the machine") {
  const qllm::test::TempDir dir;
  const std::string path = altered_xml(dir, kTwoNodes, [](hwloc_topology_t topology) {
    const hwloc_bitmap_t half = hwloc_bitmap_alloc();
    hwloc_bitmap_set_range(half, 8, 15);
    REQUIRE(hwloc_topology_allow(topology, half, nullptr, HWLOC_ALLOW_FLAG_CUSTOM) == 0);
    hwloc_bitmap_free(half);
  });
  const auto topology = synthetic(path);
  CHECK(cpus(*topology) == std::vector<int>{8, 10, 12, 14});
  CHECK(nodes(*topology) == std::vector<int>{1, 1, 1, 1});
  CHECK(topology->packages() == 1);
  CHECK(has_note(*topology, "cpuset: 8 of 16 CPUs allowed"));
  CHECK_THROWS_AS(synthetic(path, 0, "0"), qllm::Error);
}

TEST_CASE("topology: memory of a node that the process may not use is as good as none") {
  const qllm::test::TempDir dir;
  const std::string path = altered_xml(dir, kTwoNodes, [](hwloc_topology_t topology) {
    const hwloc_bitmap_t second = hwloc_bitmap_alloc();
    hwloc_bitmap_only(second, 1);
    REQUIRE(hwloc_topology_allow(topology, nullptr, second, HWLOC_ALLOW_FLAG_CUSTOM) == 0);
    hwloc_bitmap_free(second);
  });
  CHECK(synthetic(path)->numa_nodes() == 1);
  CHECK(nodes(*synthetic(path)) == std::vector<int>(8, 1));
}

TEST_CASE("topology: a node without memory uses the nearest that has some") {
  const qllm::test::TempDir dir;
  const auto drain = [](std::initializer_list<unsigned> empty) {
    return [empty = std::vector<unsigned>(empty)](hwloc_topology_t topology) {
      for (unsigned i : empty) {
        hwloc_get_obj_by_type(topology, HWLOC_OBJ_NUMANODE, i)->attr->numanode.local_memory = 0;
      }
    };
  };
  const auto topology = synthetic(altered_xml(dir, kEightNodes, drain({0, 1, 6})));
  CHECK(topology->numa_nodes() == 5);
  // 0 and 1 share their package with 2; 6 shares its own with 4, 5 and 7.
  CHECK(nodes(*topology) == std::vector<int>{2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 7, 7});
  CHECK(nodes(*synthetic(altered_xml(dir, kTwoNodes, drain({0, 1})), 2)) == std::vector<int>{0, 0});
}

TEST_CASE("topology: where the machine tells latencies, they say which node is nearest") {
  const qllm::test::TempDir dir;
  const std::string path = altered_xml(dir, kEightNodes, [](hwloc_topology_t topology) {
    std::vector<hwloc_obj_t> objects;
    for (unsigned i = 0; i < 8; ++i) {
      objects.push_back(hwloc_get_obj_by_type(topology, HWLOC_OBJ_NUMANODE, i));
    }
    objects[0]->attr->numanode.local_memory = 0;
    std::vector<hwloc_uint64_t> latencies(64, 30);
    for (size_t i = 0; i < 8; ++i) latencies[i * 8 + i] = 10;
    latencies[0 * 8 + 5] = 15;  // in the other package
    hwloc_distances_add_handle_t handle = hwloc_distances_add_create(
        topology, "NUMALatency",
        HWLOC_DISTANCES_KIND_FROM_USER | HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0);
    REQUIRE(handle != nullptr);
    REQUIRE(hwloc_distances_add_values(topology, handle, 8, objects.data(), latencies.data(), 0) ==
            0);
    REQUIRE(hwloc_distances_add_commit(topology, handle, 0) == 0);
  });
  CHECK(nodes(*synthetic(path, 0, "0,1,4")) == std::vector<int>{2, 5, 5});
}

TEST_CASE("topology: a hybrid part uses its performance cores by default, all when asked") {
  const qllm::test::TempDir dir;
  const auto kinds = [](const char* fast, const char* slow) {
    return [=](hwloc_topology_t topology) {
      const auto add = [&](int first, int last, int efficiency, const char* type) {
        hwloc_bitmap_t set = hwloc_bitmap_alloc();
        hwloc_bitmap_set_range(set, static_cast<unsigned>(first), last);
        std::string name = "CoreType";
        std::string value = type;
        hwloc_info_s info = {name.data(), value.data()};
        REQUIRE(hwloc_cpukinds_register(topology, set, efficiency, 1, &info, 0) == 0);
        hwloc_bitmap_free(set);
      };
      add(0, 3, 1, fast);
      add(4, 7, 0, slow);
    };
  };
  const std::string path = altered_xml(dir, "core:8 pu:1", kinds("IntelCore", "IntelAtom"));
  CHECK(cpus(*synthetic(path)) == std::vector<int>{0, 1, 2, 3});
  CHECK(has_note(*synthetic(path), "4 performance cores"));
  CHECK(cpus(*synthetic(path, 6)) == std::vector<int>{0, 1, 2, 3, 4, 5});
  CHECK(cpus(*synthetic(path, 0, "5-7")) == std::vector<int>{5, 6, 7});
  CHECK_FALSE(synthetic(path)->mixed_cores());
  CHECK(synthetic(path, 6)->mixed_cores());
  CHECK_FALSE(synthetic(path, 0, "5-7")->mixed_cores());
  // Kinds without both names are no hybrid part: favoured cores of a server.
  CHECK(synthetic(altered_xml(dir, "core:8 pu:1", kinds("IntelCore", "IntelCore")))
            ->workers()
            .size() == 8);
}

std::unique_ptr<Topology> with_policy(const std::string& machine, qllm::NumaPolicy policy,
                                      int threads = 0, int node = -1) {
  TopologyOptions options;
  options.threads = threads;
  options.synthetic = machine;
  options.numa = policy;
  options.node = node;
  return Topology::detect(options);
}

TEST_CASE("topology: the policy local keeps workers on one node, the one with the most cores") {
  using qllm::NumaPolicy;
  CHECK(cpus(*with_policy(kTwoNodes, NumaPolicy::local)) == std::vector<int>{0, 2, 4, 6});
  CHECK(nodes(*with_policy(kEightNodes, NumaPolicy::local)) == std::vector<int>{0, 0});
  CHECK(with_policy(kTwoNodes, NumaPolicy::local)->numa_nodes() == 2);
  // Siblings before the other node's cores; then too many.
  CHECK(cpus(*with_policy(kTwoNodes, NumaPolicy::local, 6)) == std::vector<int>{0, 1, 2, 3, 4, 6});
  const auto many = with_policy(kTwoNodes, NumaPolicy::local, 9);
  CHECK(nodes(*many) == std::vector<int>(9, 0));
  CHECK(has_note(*many, "oversubscribed: 9 threads on 8 CPUs"));
  TopologyOptions options;
  options.synthetic = kTwoNodes;
  options.cpus = "0,8-15";
  options.numa = NumaPolicy::local;
  CHECK(nodes(*Topology::detect(options)) == std::vector<int>{1, 1, 1, 1});
}

TEST_CASE("topology: other policies use all nodes; a team of one node only that") {
  using qllm::NumaPolicy;
  for (const NumaPolicy policy : {NumaPolicy::split, NumaPolicy::interleave}) {
    CHECK(nodes(*with_policy(kTwoNodes, policy)) == std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1});
  }
  for (int node = 0; node < 8; ++node) {
    CHECK(nodes(*with_policy(kEightNodes, NumaPolicy::replicate, 0, node)) ==
          std::vector<int>{node, node});
  }
  CHECK_THROWS_WITH_AS(with_policy(kTwoNodes, NumaPolicy::replicate, 0, 2),
                       "topology: expected a memory node with CPUs that this process may use, "
                       "found 2",
                       qllm::Error);
}

TEST_CASE("topology: a machine that is not this one pins and binds nothing") {
  const auto topology = synthetic(kTwoNodes);
  char page[64] = {};
  CHECK_FALSE(topology->pin(topology->workers().front()));
  CHECK_FALSE(topology->bind_memory(page, sizeof(page), topology->workers().front()));
}

TEST_CASE("topology: bad options are refused") {
  CHECK_THROWS_AS(synthetic("no such machine"), qllm::Error);
  CHECK_THROWS_AS(synthetic("/no/such/file.xml"), qllm::Error);
  CHECK_THROWS_AS(synthetic(kTwoNodes, -1), qllm::Error);
  CHECK_THROWS_AS(synthetic(kTwoNodes, 1 << 30), qllm::Error);
  CHECK_THROWS_AS(synthetic(kTwoNodes, 0, "x"), qllm::Error);
}

}  // namespace
