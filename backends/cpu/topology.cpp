#include "topology.h"

#include <fmt/format.h>
#include <hwloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <tuple>

#include "cgroup.h"
#include "core/error.h"
#include "cpu_list.h"
#include "memory_nodes.h"

namespace qllm::cpu {
namespace {

struct FreeTopology {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
struct FreeBitmap {
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};
using TopologyHandle = std::unique_ptr<hwloc_topology, FreeTopology>;
using Bitmap = std::unique_ptr<hwloc_bitmap_s, FreeBitmap>;

Bitmap make_bitmap() {
  Bitmap bitmap(hwloc_bitmap_alloc());
  require(bitmap != nullptr, ErrorCode::out_of_memory, "topology: no memory for a CPU set");
  return bitmap;
}

Bitmap single(int index) {
  Bitmap bitmap = make_bitmap();
  hwloc_bitmap_set(bitmap.get(), static_cast<unsigned>(index));
  return bitmap;
}

constexpr int kMostThreads = 4096;  // far above any machine; a typo must not start a million

// A CPU that a worker may get. Ordered by how much it is wanted.
struct Candidate {
  int rank = 0;             // 0: a core's first CPU; 1: of an efficiency core; 2: a sibling (SMT)
  int node = 0;             // operating system index, of a node with memory
  int cpu = 0;              // operating system index
  bool efficiency = false;  // of a hybrid part
};

TopologyHandle load(const std::string& synthetic) {
  hwloc_topology_t raw = nullptr;
  require(hwloc_topology_init(&raw) == 0, ErrorCode::out_of_memory,
          "topology: no memory for hwloc");
  TopologyHandle handle(raw);
  // What others may use is seen too, so that a note can say how much of the machine is ours.
  hwloc_topology_set_flags(raw, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  bool ok = true;
  if (!synthetic.empty()) {
    std::error_code ignored;
    ok = std::filesystem::is_regular_file(synthetic, ignored)
             ? hwloc_topology_set_xml(raw, synthetic.c_str()) == 0
             : hwloc_topology_set_synthetic(raw, synthetic.c_str()) == 0;
  }
  ok = ok && hwloc_topology_load(raw) == 0;
  require(ok || synthetic.empty(), ErrorCode::invalid_argument,
          "topology: expected a synthetic description or an XML file of hwloc, found \"{}\"",
          synthetic);
  require(ok, ErrorCode::unsupported, "topology: hwloc cannot read this machine");
  return handle;
}

// CPUs of efficiency cores on a hybrid part; empty elsewhere. Kinds that differ by frequency alone
// are no hybrid: servers with a few favoured cores have them too.
Bitmap efficiency_cpus(hwloc_topology_t topology) {
  Bitmap slow = make_bitmap();
  Bitmap kind = make_bitmap();
  const int kinds = hwloc_cpukinds_get_nr(topology, 0);
  bool any_fast = false;
  for (int i = 0; i < kinds; ++i) {
    unsigned n_infos = 0;
    hwloc_info_s* infos = nullptr;
    const unsigned index = static_cast<unsigned>(i);
    if (hwloc_cpukinds_get_info(topology, index, kind.get(), nullptr, &n_infos, &infos, 0) != 0) {
      continue;
    }
    for (unsigned j = 0; j < n_infos; ++j) {
      if (std::string_view(infos[j].name) != "CoreType") continue;
      const std::string_view type = infos[j].value;
      if (type == "IntelCore") any_fast = true;
      if (type == "IntelAtom") hwloc_bitmap_or(slow.get(), slow.get(), kind.get());
    }
  }
  if (!any_fast) hwloc_bitmap_zero(slow.get());
  return slow;
}

// What the process may use: the cpuset of its control group and its affinity, and of that what
// the caller asks for.
Bitmap usable_cpus(hwloc_topology_t topology, const std::string& list) {
  Bitmap usable = make_bitmap();
  hwloc_bitmap_copy(usable.get(), hwloc_topology_get_allowed_cpuset(topology));
  Bitmap bound = make_bitmap();
  if (hwloc_topology_is_thissystem(topology) != 0 &&
      hwloc_get_cpubind(topology, bound.get(), HWLOC_CPUBIND_PROCESS) == 0) {
    hwloc_bitmap_and(usable.get(), usable.get(), bound.get());
  }
  if (list.empty()) return usable;
  Bitmap wanted = make_bitmap();
  for (int cpu : parse_cpu_list(list)) {
    require(hwloc_bitmap_isset(usable.get(), static_cast<unsigned>(cpu)) == 1,
            ErrorCode::invalid_argument,
            "CPU list: CPU {} of \"{}\" is not among those that this process may use", cpu, list);
    hwloc_bitmap_set(wanted.get(), static_cast<unsigned>(cpu));
  }
  return wanted;
}

int objects_in(hwloc_topology_t topology, hwloc_const_cpuset_t cpus, hwloc_obj_type_t type) {
  int count = 0;
  hwloc_obj_t object = nullptr;
  while ((object = hwloc_get_next_obj_by_type(topology, type, object)) != nullptr) {
    if (hwloc_bitmap_intersects(object->cpuset, cpus)) ++count;
  }
  return count;
}

// Takes `count` candidates, the wanted ranks first and within a rank from the nodes in turn, so
// that every node gets an equal share. Grouped by node in the end: neighbours share their memory.
std::vector<WorkerSlot> spread(const std::vector<Candidate>& candidates, size_t count) {
  std::vector<std::tuple<int, size_t, int, int>>
      order;  // rank, turn within (rank, node), node, cpu
  std::map<std::pair<int, int>, size_t> turns;
  order.reserve(candidates.size());
  for (const Candidate& c : candidates) {
    order.emplace_back(c.rank, turns[{c.rank, c.node}]++, c.node, c.cpu);
  }
  std::sort(order.begin(), order.end());
  order.resize(std::min(count, order.size()));
  std::vector<WorkerSlot> slots;
  slots.reserve(count);
  for (const auto& [rank, turn, node, cpu] : order) slots.push_back({cpu, node});
  std::sort(slots.begin(), slots.end(), [](const WorkerSlot& a, const WorkerSlot& b) {
    return std::tuple(a.numa_node, a.cpu) < std::tuple(b.numa_node, b.cpu);
  });
  const size_t distinct = slots.size();
  for (size_t i = distinct; i < count; ++i) slots.push_back(slots[i % distinct]);
  return slots;
}

// Those of one node: the asked one, or the one with the most cores, the first of equals.
std::vector<Candidate> on_one_node(std::vector<Candidate> candidates, int node) {
  if (node < 0) {
    std::map<int, int> cores;
    for (const Candidate& c : candidates) cores[c.node] += c.rank == 0 ? 1 : 0;
    const auto fewer = [](const auto& a, const auto& b) { return a.second < b.second; };
    node = std::max_element(cores.begin(), cores.end(), fewer)->first;
  }
  std::erase_if(candidates, [&](const Candidate& c) { return c.node != node; });
  require(!candidates.empty(), ErrorCode::invalid_argument,
          "topology: expected a memory node with CPUs that this process may use, found {}", node);
  return candidates;
}

class HwlocTopology final : public Topology {
 public:
  explicit HwlocTopology(const TopologyOptions& options);

  const std::vector<WorkerSlot>& workers() const override { return workers_; }
  int packages() const override { return packages_; }
  int numa_nodes() const override { return numa_nodes_; }
  const std::vector<MemoryPlace>& memory_places() const override { return memory_places_; }
  bool mixed_cores() const override { return mixed_cores_; }
  int cores() const override { return cores_; }
  int allowed_cpus() const override { return allowed_cpus_; }
  int64_t l2_bytes() const override { return l2_bytes_; }
  int64_t l3_bytes() const override { return l3_bytes_; }
  const std::vector<std::string>& notes() const override { return notes_; }
  bool pin(const WorkerSlot& slot) const override;
  bool bind_memory(void* p, size_t bytes, const WorkerSlot& slot) const override;
  bool place_memory(void* p, size_t bytes, const WorkerSlot& slot) const override;
  bool binds() const override { return binds_; }

 private:
  hwloc_topology_t raw() const { return handle_.get(); }
  std::vector<Candidate> list_candidates(hwloc_const_cpuset_t usable);
  size_t choose_count(const TopologyOptions& options, const std::vector<Candidate>& candidates);
  void find_caches();
  void find_mixed_cores(const std::vector<Candidate>& candidates);
  void try_to_bind();
  bool set_membind(void* p, size_t bytes, hwloc_const_nodeset_t nodes,
                   hwloc_membind_policy_t policy) const;

  TopologyHandle handle_;
  std::vector<WorkerSlot> workers_;
  std::vector<std::string> notes_;
  Bitmap memory_ = make_bitmap();  // nodes that have some
  std::vector<MemoryPlace> memory_places_;
  bool interleaves_ = false;
  bool binds_ = true;
  bool mixed_cores_ = false;
  int packages_ = 1;
  int numa_nodes_ = 1;
  int cores_ = 1;
  int allowed_cpus_ = 1;
  int64_t l2_bytes_ = 0;
  int64_t l3_bytes_ = 0;
};

HwlocTopology::HwlocTopology(const TopologyOptions& options) : handle_(load(options.synthetic)) {
  require(options.threads >= 0 && options.threads <= kMostThreads, ErrorCode::invalid_argument,
          "threads: expected 0 (choose) to {}, found {}", kMostThreads, options.threads);
  const Bitmap usable = usable_cpus(raw(), options.cpus);
  packages_ = std::max(1, objects_in(raw(), usable.get(), HWLOC_OBJ_PACKAGE));
  allowed_cpus_ = objects_in(raw(), usable.get(), HWLOC_OBJ_PU);
  require(allowed_cpus_ > 0, ErrorCode::unsupported, "topology: no CPU that this process may use");
  const int online = hwloc_get_nbobjs_by_type(raw(), HWLOC_OBJ_PU);
  if (options.cpus.empty() && allowed_cpus_ < online) {
    notes_.push_back(fmt::format("cpuset: {} of {} CPUs allowed", allowed_cpus_, online));
  }
  std::vector<Candidate> candidates = list_candidates(usable.get());
  if (options.node >= 0 || options.numa == NumaPolicy::local) {
    candidates = on_one_node(std::move(candidates), options.node);
  }
  interleaves_ = options.numa == NumaPolicy::interleave;
  workers_ = spread(candidates, choose_count(options, candidates));
  find_mixed_cores(candidates);
  find_caches();
  try_to_bind();
}

std::vector<Candidate> HwlocTopology::list_candidates(hwloc_const_cpuset_t usable) {
  const MemoryNodes nodes(raw());
  numa_nodes_ = nodes.count();
  memory_places_ = nodes.places();
  for (const MemoryPlace& place : memory_places_) {
    hwloc_bitmap_set(memory_.get(), static_cast<unsigned>(place.node));
  }
  const Bitmap slow = efficiency_cpus(raw());
  std::vector<Candidate> candidates;
  std::map<hwloc_obj_t, int> seen;  // CPUs of each core so far
  int n_slow = 0;
  hwloc_obj_t pu = nullptr;
  while ((pu = hwloc_get_next_obj_inside_cpuset_by_type(raw(), usable, HWLOC_OBJ_PU, pu)) !=
         nullptr) {
    const hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(raw(), HWLOC_OBJ_CORE, pu);
    const bool sibling = seen[core != nullptr ? core : pu]++ > 0;
    const bool efficiency = hwloc_bitmap_isset(slow.get(), pu->os_index) == 1;
    if (!sibling && efficiency) ++n_slow;
    candidates.push_back({sibling ? 2 : (efficiency ? 1 : 0), nodes.node_of(pu),
                          static_cast<int>(pu->os_index), efficiency});
  }
  cores_ = static_cast<int>(seen.size());
  if (n_slow == cores_) {  // nothing else was left to it: they are the best there is
    for (Candidate& c : candidates) c.rank = c.rank == 1 ? 0 : c.rank;
  } else if (n_slow > 0) {
    notes_.push_back(
        fmt::format("hybrid: {} performance cores used by default, {} efficiency cores not",
                    cores_ - n_slow, n_slow));
  }
  return candidates;
}

size_t HwlocTopology::choose_count(const TopologyOptions& options,
                                   const std::vector<Candidate>& candidates) {
  std::optional<CpuQuota> quota;
  if (hwloc_topology_is_thissystem(raw()) != 0) quota = read_cpu_quota();
  const bool limits = quota && quota->cpus < allowed_cpus_;
  if (limits) notes_.push_back(fmt::format("quota: {:.2f} CPUs ({})", quota->cpus, quota->source));
  if (options.threads > 0) {
    const auto cpus = static_cast<int>(candidates.size());
    if (options.threads > cpus) {
      notes_.push_back(fmt::format("oversubscribed: {} threads on {} CPUs", options.threads, cpus));
    }
    return static_cast<size_t>(options.threads);
  }
  const auto n_best = static_cast<size_t>(std::count_if(
      candidates.begin(), candidates.end(), [](const Candidate& c) { return c.rank == 0; }));
  if (!limits) return n_best;
  return std::min(n_best, static_cast<size_t>(std::max(1.0, std::ceil(quota->cpus))));
}

void HwlocTopology::find_caches() {
  const hwloc_obj_t pu =
      hwloc_get_pu_obj_by_os_index(raw(), static_cast<unsigned>(workers_.front().cpu));
  const auto size = [&](hwloc_obj_type_t type) -> int64_t {
    const hwloc_obj_t cache = hwloc_get_ancestor_obj_by_type(raw(), type, pu);
    return cache != nullptr ? static_cast<int64_t>(cache->attr->cache.size) : 0;
  };
  l2_bytes_ = size(HWLOC_OBJ_L2CACHE);
  l3_bytes_ = size(HWLOC_OBJ_L3CACHE);
}

bool HwlocTopology::pin(const WorkerSlot& slot) const {
  // hwloc says yes to everything about a machine that is not this one.
  if (hwloc_topology_is_thissystem(raw()) == 0) return false;
  return hwloc_set_cpubind(raw(), single(slot.cpu).get(), HWLOC_CPUBIND_THREAD) == 0;
}

bool HwlocTopology::bind_memory(void* p, size_t bytes, const WorkerSlot& slot) const {
  if (hwloc_topology_is_thissystem(raw()) == 0) return false;
  if (numa_nodes_ == 1 || bytes == 0) return true;  // it can lie nowhere else
  return set_membind(p, bytes, single(slot.numa_node).get(), HWLOC_MEMBIND_BIND);
}

bool HwlocTopology::place_memory(void* p, size_t bytes, const WorkerSlot& slot) const {
  if (!interleaves_) return bind_memory(p, bytes, slot);
  if (hwloc_topology_is_thissystem(raw()) == 0) return false;
  if (numa_nodes_ == 1 || bytes == 0) return true;
  return set_membind(p, bytes, memory_.get(), HWLOC_MEMBIND_INTERLEAVE);
}

bool HwlocTopology::set_membind(void* p, size_t bytes, hwloc_const_nodeset_t nodes,
                                hwloc_membind_policy_t policy) const {
  // Not strict: a full node must not turn a wish into the end of the process.
  return hwloc_set_area_membind(raw(), p, bytes, nodes, policy,
                                HWLOC_MEMBIND_BYNODESET | HWLOC_MEMBIND_MIGRATE) == 0;
}

// On one page, once: what is refused here is refused for all.
void HwlocTopology::try_to_bind() {
  if (hwloc_topology_is_thissystem(raw()) == 0 || numa_nodes_ == 1) return;
  constexpr size_t kPage = 4096;
  void* const page =
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return;
  binds_ = place_memory(page, kPage, workers_.back());
  const int error = errno;
  munmap(page, kPage);
  if (binds_) return;
  notes_.push_back(
      fmt::format("memory binding refused (mbind: {}): pages lie where their worker touches them "
                  "first",
                  std::strerror(error)));
}

void HwlocTopology::find_mixed_cores(const std::vector<Candidate>& candidates) {
  int kinds[2] = {0, 0};
  for (const WorkerSlot& slot : workers_) {
    const auto c = std::find_if(candidates.begin(), candidates.end(),
                                [&](const Candidate& other) { return other.cpu == slot.cpu; });
    ++kinds[c->efficiency ? 1 : 0];
  }
  mixed_cores_ = kinds[0] > 0 && kinds[1] > 0;
}

}  // namespace

std::unique_ptr<Topology> Topology::detect(const TopologyOptions& options) {
  return std::make_unique<HwlocTopology>(options);
}

}  // namespace qllm::cpu
