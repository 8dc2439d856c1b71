#pragma once

// Everything that attend offers. Each header can also be included alone.
#include <attend/additive_attention.h>
#include <attend/attention.h>
#include <attend/checkpoint.h>
#include <attend/checkpointing.h>
#include <attend/error.h>
#include <attend/generation.h>
#include <attend/kv_cache.h>
#include <attend/linear_attention.h>
#include <attend/mask.h>
#include <attend/nn/additive_attention.h>
#include <attend/nn/attention.h>
#include <attend/nn/bilinear_attention.h>
#include <attend/nn/gated_delta_net.h>
#include <attend/nn/gated_linear_attention.h>
#include <attend/nn/linear_attention.h>
#include <attend/nn/mixer.h>
#include <attend/nn/multi_head_attention.h>
#include <attend/nn/retention.h>
#include <attend/nn/transformer.h>
#include <attend/plot.h>
#include <attend/position.h>
#include <attend/recurrent_state.h>
#include <attend/score_mod.h>
#include <attend/transformer_cache.h>
#include <attend/version.h>
