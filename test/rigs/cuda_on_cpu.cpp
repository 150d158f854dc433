// Host build of the kernels, with two ways to run them. LOOPS: each phase is a loop over the threads of a block; fast, and
// blind to barriers. Every other order: each thread is a fibre, which runs to its next barrier without a pause and goes on
// when all others have come there. FORWARDS and BACKWARDS together break whatever needs a barrier and has none, since of
// any two threads each goes first in one of them.
#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#define BARRIER() barrier(__COUNTER__ - FIRST_BARRIER)
#define KERNEL(name)                                                                                                   \
  extern "C" int name(const Job* job, int blocks_x, int blocks_y, int blocks_z, int threads, int shared_bytes,         \
                      int order, int left_out) {                                                                       \
    const Block grid = {blocks_x, blocks_y, blocks_z, threads, 0, order == LOOPS ? 1 : threads};                       \
    return launch({name##_block, job, grid, nullptr, order, left_out}, shared_bytes);                                  \
  }
#include "phases.cuh"

enum Order { LOOPS, FORWARDS, BACKWARDS };  // any other number is the seed of a random order

struct Call {
  void (*kernel)(const Job&, const Block&, float*);
  const Job* job;
  Block block;
  float* shared;
  int order;     // of the blocks, and of the threads of a block up to the next barrier
  int left_out;  // the barrier that nobody waits at, by its place in the source
  void run() const { kernel(*job, block, shared); }
};

// Numbers below `count` in an order; a random order is another one each time.
class Sequence {
 public:
  Sequence(int count, int order) : numbers(count), shuffled(order > BACKWARDS), random(order) {
    std::iota(numbers.begin(), numbers.end(), 0);
    if (order == BACKWARDS) std::reverse(numbers.begin(), numbers.end());
  }
  const std::vector<int>& next() {
    for (unsigned n = numbers.size(); shuffled && n > 1; --n) {
      random = 1664525 * random + 1013904223;  // of Numerical Recipes; the header <random> takes as long as all the rest
      std::swap(numbers[n - 1], numbers[(random >> 16) % n]);
    }
    return numbers;
  }

 private:
  std::vector<int> numbers;
  bool shuffled;
  unsigned random;
};

// --- fibres ---------------------------------------------------------------------------------------------------------

constexpr int FINISHED = -1, DIVERGED = -1;
constexpr int STACK_BYTES = 40000;  // no power of two, or the tops of the stacks compete for the same lines of the cache

struct Fibre {
  std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
  jmp_buf place;
  int barrier;  // the one that it waits at, or FINISHED
};

static thread_local std::vector<Fibre> fibres;  // kept for the next block
static thread_local Fibre* running;
static thread_local jmp_buf scheduler;
static thread_local Call call;  // what a fibre that has finished runs next

[[gnu::noinline]] static void wait_at(int barrier) {
  running->barrier = barrier;
  if (_setjmp(running->place) == 0) _longjmp(scheduler, 1);
}

[[gnu::noinline]] static void resume(Fibre& fibre) {
  running = &fibre;
  if (_setjmp(scheduler) == 0) _longjmp(fibre.place, 1);
}

static void run_calls() {
  for (;;) {
    wait_at(FINISHED);
    const Call mine = call;
    mine.run();
  }
}

[[gnu::noinline]] static void start(Fibre& fibre) {
  static thread_local ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fibre.stack.get();
  context.uc_stack.ss_size = STACK_BYTES;
  makecontext(&context, run_calls, 0);
  running = &fibre;
  if (_setjmp(scheduler) == 0) setcontext(&context);
}

static void barrier(int number) {
  if (call.order != LOOPS && number != call.left_out) wait_at(number);
}

// --- launching ------------------------------------------------------------------------------------------------------

// Barriers met, as bits; DIVERGED where a thread waits at one that others do not come to.
static int run_on_fibres(Sequence& threads) {
  int met = 0;
  for (int thread : threads.next()) {
    call.block.first = thread;
    resume(fibres[thread]);
  }
  for (;;) {
    const int barrier = fibres[0].barrier;
    for (int thread = 1; thread < call.block.threads; ++thread) {
      if (fibres[thread].barrier != barrier) return DIVERGED;
    }
    if (barrier == FINISHED) return met;
    met |= 1 << barrier;
    for (int thread : threads.next()) resume(fibres[thread]);
  }
}

// Shared memory is NaN at the start of each block: nothing may be read from it that the block did not write.
static int launch(const Call& launched, int shared_bytes) {
  const Block& grid = launched.block;
  std::vector<float> shared(shared_bytes / sizeof(float));
  Sequence blocks(grid.x * grid.y * grid.z, launched.order), threads(grid.threads, launched.order);
  int met = 0;
  for (int n : blocks.next()) {
    shared.assign(shared.size(), std::numeric_limits<float>::quiet_NaN());
    call = launched;
    call.shared = shared.data();
    call.block.x = n % grid.x;
    call.block.y = n / grid.x % grid.y;
    call.block.z = n / grid.x / grid.y;
    if (call.order == LOOPS) {
      call.run();
      continue;
    }
    while (static_cast<int>(fibres.size()) < grid.threads) start(fibres.emplace_back());
    const int met_here = run_on_fibres(threads);
    if (met_here == DIVERGED) {
      fibres.clear();  // some would wait for ever
      return DIVERGED;
    }
    met |= met_here;
  }
  return met;
}

constexpr int FIRST_BARRIER = __COUNTER__ + 1;
#include "kernels.cu"
extern "C" {
extern const int barrier_count = __COUNTER__ - FIRST_BARRIER, job_bytes = sizeof(Job);
}
