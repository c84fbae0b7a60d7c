#include "support/allocations.h"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "support/sanitized.h"

namespace {

std::atomic<int64_t> count{0};

[[maybe_unused]] void counted() { count.fetch_add(1, std::memory_order_relaxed); }

}  // namespace

namespace qllm::test {
int64_t allocations() { return count.load(std::memory_order_relaxed); }
}  // namespace qllm::test

// A sanitizer brings its own malloc and operator new, which must stay (clang refuses to link
// others).
#if defined(QLLM_TEST_SANITIZED) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#elif defined(__GLIBC__)

// A program's own malloc replaces the C library's everywhere, in shared libraries too; operator new
// calls it. glibc keeps its own functions under these names.
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* p, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* p);

void* malloc(size_t bytes) {
  counted();
  return __libc_malloc(bytes);
}
void* calloc(size_t n, size_t bytes) {
  counted();
  return __libc_calloc(n, bytes);
}
void* realloc(void* p, size_t bytes) {
  counted();
  return __libc_realloc(p, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  counted();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** p, size_t alignment, size_t bytes) {
  void* made = memalign(alignment, bytes);
  if (made == nullptr) return ENOMEM;
  *p = made;
  return 0;
}
void free(void* p) { __libc_free(p); }
}

#else

namespace {

void* take(std::size_t bytes, std::size_t alignment) {
  counted();
  void* p = nullptr;
  if (alignment <= alignof(std::max_align_t)) {
    p = std::malloc(bytes == 0 ? 1 : bytes);
  } else if (posix_memalign(&p, alignment, bytes) != 0) {
    p = nullptr;
  }
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

// The other forms (arrays, nothrow) call these.
void* operator new(std::size_t bytes) { return take(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return take(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

#endif
