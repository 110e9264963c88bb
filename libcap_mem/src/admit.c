// SPDX-License-Identifier: Apache-2.0
/* The one door between the hooks and the ledger. Where there is no account, or the GPU is none of the
 * policy's, the answer is no. */
#include "admit.h"

#include "devices.h"
#include "graphs.h"
#include "linear.h"
#include "pools.h"
#include "say.h"

CUresult gp_refuse(int gpu, uint64_t bytes, const char *api) {
    struct gp_ledger *ledger = gp_session();
    if (!ledger) {
        gp_say_unusable(bytes, gp_session_problem());
    } else if (gpu < 0) {
        gp_say_unusable(bytes, "this container was not granted this GPU");
    } else {
        gp_note_refusal(ledger, (unsigned)gpu, bytes, api);
        gp_say_refused(ledger, (unsigned)gpu, bytes);
    }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult gp_last_attempt(int gpu, uint64_t bytes, const char *api) {
    struct gp_ledger *ledger = gp_session();
    if (!ledger || gpu < 0 || bytes >= GP_ENDLESS)
        return gp_refuse(gpu, bytes, api);
    gp_pools_trim(gpu);
    gp_graphs_trim(gpu);
    gp_linear_trim(gpu);
    enum gp_verdict verdict = gp_reserve(ledger, (unsigned)gpu, bytes);
    if (verdict == GP_FAILED)
        gp_say_unusable(bytes, gp_ledger_problem(ledger));
    else if (verdict == GP_REFUSED)
        gp_refuse(gpu, bytes, api);
    return verdict == GP_GRANTED ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

void gp_count(int gpu, uint64_t bytes) {
    struct gp_ledger *ledger = gp_session();
    if (ledger && gpu >= 0 && bytes && bytes < GP_ENDLESS)
        gp_charge(ledger, (unsigned)gpu, bytes);
}
