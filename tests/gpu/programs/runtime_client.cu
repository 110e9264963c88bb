// SPDX-License-Identifier: Apache-2.0
/* A program of the CUDA runtime, for nvcc: computes, then asks for more than the grant. Prints "2000 RESULT". */
#include <cstdio>
#include <cstdlib>

__global__ void twice(float *x, int n) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < n)
        x[at] *= 2;
}

int main(int, char **argv) {
    float host[1000], *x, sum = 0;
    void *large;
    for (float &value : host)
        value = 1;
    if (cudaMalloc(&x, sizeof host) || cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice))
        return 1;
    twice<<<4, 256>>>(x, 1000);
    if (cudaMemcpy(host, x, sizeof host, cudaMemcpyDeviceToHost))
        return 2;
    for (float value : host)
        sum += value;
    cudaError_t over = cudaMalloc(&large, strtoull(argv[1], nullptr, 10));
    std::printf("%.0f %d\n", sum, (int)over);
    return 0;
}
