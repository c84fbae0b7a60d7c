// Runs a program in which some system calls fail with EPERM, as they do in many containers:
//   refuse [--no-thp] [mbind,move_pages,...] PROGRAM [ARGUMENT...]
// Exit status 125 where the filter cannot be installed (a skip), 127 where the program cannot run.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr int kSkip = 125;

const std::map<std::string, int> kCalls = {{"mbind", SYS_mbind},
                                           {"set_mempolicy", SYS_set_mempolicy},
                                           {"get_mempolicy", SYS_get_mempolicy},
                                           {"move_pages", SYS_move_pages},
                                           {"migrate_pages", SYS_migrate_pages},
                                           {"sched_setaffinity", SYS_sched_setaffinity}};

sock_filter statement(unsigned code, unsigned k) { return {static_cast<__u16>(code), 0, 0, k}; }

// Behind an instruction that loaded the call's number: EPERM for one of them.
void append_refusal(int call, std::vector<sock_filter>* program) {
  program->push_back({BPF_JMP | BPF_JEQ | BPF_K, 0, 1, static_cast<__u32>(call)});
  program->push_back(statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
}

bool install(const std::vector<int>& calls) {
  std::vector<sock_filter> program = {
      statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64},
      statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const int call : calls) append_refusal(call, &program);
  program.push_back(statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog whole = {static_cast<unsigned short>(program.size()), program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &whole) == 0;
}

bool parse(std::string list, std::vector<int>* calls) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const auto call = kCalls.find(list.substr(0, comma));
    if (call == kCalls.end()) return false;
    calls->push_back(call->second);
    list = comma == std::string::npos ? "" : list.substr(comma + 1);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  int next = 1;
  if (next < argc && std::string(argv[next]) == "--no-thp") {
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) return kSkip;
    ++next;
  }
  std::vector<int> calls;
  if (next + 1 >= argc || !parse(argv[next], &calls)) {
    std::fprintf(stderr, "usage: refuse [--no-thp] CALL,... PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  if (!calls.empty() && !install(calls)) return kSkip;
  execvp(argv[next + 1], argv + next + 1);
  std::fprintf(stderr, "refuse: %s: %s\n", argv[next + 1], std::strerror(errno));
  return 127;
}
