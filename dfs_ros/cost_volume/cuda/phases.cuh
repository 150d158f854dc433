// Kernels are written as phases: EACH_THREAD { ... } is what every thread of a block does between two barriers, and what a
// thread keeps over a barrier lies in shared memory. On the device a phase runs in parallel; in the host build it is a
// loop over the threads. So both run these very lines.
#pragma once

#include "elements.cuh"

struct Block {
  int x, y, z;      // which block of the grid
  int threads;      // in each block, along x
  int first, step;  // the threads that this call stands for
};

#define EACH_THREAD for (int thread = block.first; thread >= 0 && thread < block.threads; thread += block.step)

#ifdef __CUDACC__
#define BARRIER() __syncthreads()
#define KERNEL(name) \
  extern "C" __global__ void __launch_bounds__(256) name(const Job job) {                             \
    extern __shared__ float shared[];                                                                 \
    const Block block = {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y),                  \
                         static_cast<int>(blockIdx.z), static_cast<int>(blockDim.x),                  \
                         static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};                \
    name##_block(job, block, shared);                                                                 \
  }
#else
#include <limits>
#include <vector>
#define BARRIER()
// Shared memory starts as NaN, as nothing may be read from it that the block did not write. Threads and blocks run
// forwards or, with host_backwards, backwards: the order must not matter.
extern "C" { int host_backwards = 0; }
#define KERNEL(name) \
  extern "C" void name(const Job* job, int blocks_x, int blocks_y, int blocks_z, int threads, int shared_bytes) { \
    std::vector<float> shared(shared_bytes / sizeof(float));                                                    \
    const int first = host_backwards ? threads - 1 : 0, step = host_backwards ? -1 : 1;                         \
    const int blocks = blocks_x * blocks_y * blocks_z;                                                          \
    for (int n = 0; n < blocks; ++n) {                                                                          \
      const int i = host_backwards ? blocks - 1 - n : n;                                                        \
      const Block block{i % blocks_x, i / blocks_x % blocks_y, i / blocks_x / blocks_y, threads, first, step};  \
      shared.assign(shared.size(), std::numeric_limits<float>::quiet_NaN());                                    \
      name##_block(*job, block, shared.data());                                                                 \
    }                                                                                                           \
  }
extern "C" int job_bytes() { return static_cast<int>(sizeof(Job)); }
#endif
