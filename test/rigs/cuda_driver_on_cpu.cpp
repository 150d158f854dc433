// The functions of the CUDA driver that dfs_ros calls through cuda-bindings, with the signatures of cuda.h (checked against
// it where it is there), for the host build of the kernels: what is launched runs at once, on the CPU. Refuses what a GPU
// would refuse.
#include <cstdint>
#if __has_include(<cuda.h>)
#include <cuda.h>
#else
typedef int CUresult;
typedef int CUdriverProcAddressQueryResult;
typedef uint64_t cuuint64_t;
typedef struct CUctx_st* CUcontext;
typedef struct CUmod_st* CUmodule;
typedef struct CUfunc_st* CUfunction;
typedef struct CUstream_st* CUstream;
#endif
#include <dlfcn.h>
#include <cstdlib>
#include <cstring>

static CUcontext const context = reinterpret_cast<CUcontext>(uintptr_t{0x123456789abc});
static CUcontext current = context;
static CUstream const stream = reinterpret_cast<CUstream>(uintptr_t{0x7fedcba98765});
static void* kernels = nullptr;
static const CUresult invalid = static_cast<CUresult>(1), not_found = static_cast<CUresult>(500);
static const CUresult bad_image = static_cast<CUresult>(200), success = static_cast<CUresult>(0);

extern "C" {
// By this cuda-bindings finds all others.
CUresult cuGetProcAddress_v2(const char* name, void** function, int, cuuint64_t, CUdriverProcAddressQueryResult*) {
  *function = dlsym(RTLD_DEFAULT, name);
  return *function == nullptr ? not_found : success;
}
CUresult cuCtxGetCurrent(CUcontext* out) { *out = current; return success; }
CUresult cuCtxSetCurrent(CUcontext in) { current = in; return in == context ? success : invalid; }
// Takes any ELF image for the kernels, whose host build the environment names.
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  if (std::memcmp(image, "\177ELF", 4) != 0) return bad_image;
  kernels = dlopen(std::getenv("DFS_ROS_HOST_KERNELS"), RTLD_NOW);
  *module = static_cast<CUmodule>(kernels);
  return kernels == nullptr ? bad_image : success;
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  *function = reinterpret_cast<CUfunction>(dlsym(static_cast<void*>(module), name));
  return module != kernels || *function == nullptr ? not_found : success;
}
CUresult cuLaunchKernel(CUfunction function, unsigned int blocks_x, unsigned int blocks_y, unsigned int blocks_z,
                        unsigned int threads_x, unsigned int threads_y, unsigned int threads_z,
                        unsigned int shared_bytes, CUstream on, void** arguments, void** extra) {
  if (current != context || on != stream || extra != nullptr || threads_y != 1 || threads_z != 1) return invalid;
  if (threads_x == 0 || threads_x > 256 || shared_bytes > 48 * 1024) return invalid;
  if (blocks_x == 0 || blocks_y == 0 || blocks_z == 0 || blocks_y > 65535 || blocks_z > 65535) return invalid;
  using Kernel = int (*)(const void*, int, int, int, int, int, int order, int left_out);
  reinterpret_cast<Kernel>(function)(arguments[0], blocks_x, blocks_y, blocks_z, threads_x, shared_bytes, 0, -1);
  return success;
}
}
