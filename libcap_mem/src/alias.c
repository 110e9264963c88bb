// SPDX-License-Identifier: Apache-2.0
/* The other name of the interception library. An object has one SONAME, and ours is libcuda.so.1; but
 * programs also dlopen("libcuda.so"), and in an image that carries a driver of its own (cuda-compat, first in
 * its LD_LIBRARY_PATH or ld.so.cache) that name leads there. This object is preloaded too and has that
 * SONAME; it needs libcuda.so.1, which is loaded already and is us, so a look-up by its handle finds our
 * functions. Nothing is in it: one copy, one account.
 */
typedef int gp_nothing;
