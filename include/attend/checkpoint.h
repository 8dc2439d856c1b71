#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <torch/ordered_dict.h>

#include <concepts>
#include <functional>
#include <map>
#include <string>
#include <vector>

/// @file
/// Reading and writing the tensors of a model: safetensors files, and the files that Python's `torch.save`
/// writes, which are read only.
///
/// LibTorch has readers of its own (`torch::load`, `torch::pickle_load`). They read neither safetensors nor a
/// pickled `OrderedDict`, which is what `torch.save(model.state_dict(), path)` writes. The readers here
/// memory-map the file, so that a tensor's bytes are read when they are first used and processes that load
/// the same file share them; they never run code that a file contains; and they are fuzzed: any sequence of
/// bytes either loads or throws c10::Error, with memory in proportion to the size of the file.

namespace torch::nn {
class Module;
}

namespace attend {

/// Named tensors: the parameters and buffers of a module, or any other contents of a file of tensors.
struct StateDict {
  /// The tensors, in the order of the module or the file.
  torch::OrderedDict<std::string, at::Tensor> tensors{};
  std::map<std::string, std::string> metadata = {};  ///< text by name; stored by safetensors files only
};

/// Reads a safetensors file (https://github.com/huggingface/safetensors).
///
/// The tensors, on the CPU, are views of the memory-mapped file. Writing to them changes the memory of this
/// process only. The file must not be truncated while the tensors exist; `save_safetensors` does not truncate
/// a file but replaces it. Boolean tensors, and tensors whose data is not aligned for their dtype, are
/// copied. F4, of which two elements share a byte, is float4_e2m1fn_x2, whose last dimension is half as long.
///
/// Errors (c10::Error): a file that cannot be read or violates the format: a truncated file or header; a
/// header that exceeds 100 MB, is not UTF-8 or JSON, or has missing, unknown or duplicate fields; duplicate
/// tensor names; unknown dtypes; a size that overflows or differs from that of the data; data that overlaps,
/// leaves gaps or ends before the file does.
ATTEND_API StateDict load_safetensors(const std::string& path);

/// Reads a safetensors file in memory, as `load_safetensors`. `bytes`, uint8 [N] on the CPU, are the contents
/// of the file; the tensors share their memory.
ATTEND_API StateDict parse_safetensors(const at::Tensor& bytes);

/// Writes a safetensors file atomically: the new file is written beside `path`, flushed to the disk, and
/// renamed to `path`. Concurrent readers, and readers after a crash, find either the old file or the complete
/// new file.
///
/// Errors (c10::Error): a name or metadata that is not UTF-8, the name `__metadata__`, a tensor that is not
/// dense, has no data (meta), whose elements share memory (an expanded one; `contiguous` copies them) or
/// whose dtype the format lacks (complex128, complex32, quantized ones), and a file that cannot be written;
/// the old file is kept.
ATTEND_API void save_safetensors(const StateDict& state_dict, const std::string& path);

/// Reads a file that Python's `torch.save(model.state_dict(), path)` wrote: the zip format that is the
/// default since PyTorch 1.6, and the sequence of pickles from before.
///
/// Dictionaries, lists, tuples and sets may be nested: the name of a tensor is the path of keys and indices
/// to it, joined by dots, where a key that is not text is written as Python prints it (`0`, `0.5`,
/// `(1, 'a')`). If a container is referred to several times, its tensors have several names. Values that are
/// not tensors, such as the epoch and learning rates of a training checkpoint, and attributes of tensors are
/// left out. Strides are preserved, and tensors that shared memory share it again. Sparse tensors stay
/// sparse, and quantized ones quantized. The tensors are views of the memory-mapped file, as those of
/// `load_safetensors`.
///
/// The pickle in the file cannot run code: as for `torch.load(weights_only=True)`, it may refer only to plain
/// containers and values (OrderedDict, Counter, set, complex, bytes, torch.Size, torch.device), the functions
/// that rebuild tensors and parameters, storage types, dtypes, layouts and quantization schemes.
///
/// Errors (c10::Error): a pickle that refers to anything else or has an opcode for arbitrary objects, which
/// the message names; a container of tensors that contains itself; two tensors of one name; names and tensors
/// that take more than 1 MiB and 128 times the size of the file (128 bytes per tensor, and its name), as
/// short pickles can describe; and a damaged file.
ATTEND_API StateDict load_pytorch(const std::string& path);

/// Reads a file of `torch.save` in memory, as `load_pytorch`. `bytes`, uint8 [N] on the CPU, are the contents
/// of the file; the tensors share their memory.
ATTEND_API StateDict parse_pytorch(const at::Tensor& bytes);

/// Reads the weights of a model from a folder as published for Python's `transformers`: the first of
/// model.safetensors, model.safetensors.index.json, pytorch_model.bin and pytorch_model.bin.index.json. An
/// index lists files in the same folder over which the tensors are distributed; if the metadata of these
/// files differ, those of the first file are kept.
///
/// Errors (c10::Error): a folder without any of these files (the message lists what it contains), an index
/// that names a file in another folder, a tensor that the file of the index lacks or that two files hold, and
/// those of `load_safetensors` and `load_pytorch`.
ATTEND_API StateDict load_weights(const std::string& folder);

/// Returns the parameters and buffers of a module, detached and sharing its memory.
ATTEND_API StateDict state_dict(const torch::nn::Module& module);

/// How `load_state_dict` matches names.
struct LoadParams {
  /// Maps each key of the state dict to the name of a parameter or buffer of the module. Default: the same
  /// name. For example, to remove a prefix: `[](std::string key) { return key.starts_with("model.") ?
  /// key.substr(6) : key; }`.
  std::function<std::string(std::string)> key_mapping = {};
  /// Whether missing and unexpected keys are errors.
  bool strict = true;
  /// Whether a tensor of another dtype than the module's is converted; if false, it is an error.
  bool convert_dtype = true;
};

/// The keys that did not match; both are empty after a strict load.
struct LoadReport {
  std::vector<std::string> missing_keys;  ///< the names in the module that the state dict lacks
  /// The keys of the state dict, after `key_mapping`, that the module lacks.
  std::vector<std::string> unexpected_keys;
};

/// Copies the tensors of a state dict into the parameters and buffers of a module, converting dtypes (unless
/// refused), devices and layouts (sparse and quantized tensors become dense).
///
/// Errors (c10::Error): missing and unexpected keys (when strict), other shapes, other dtypes (when they are
/// not converted), a complex tensor for a real one or the reverse, and two keys that `key_mapping` maps to
/// one name. The message lists the first ten of each kind, and the module is unchanged.
ATTEND_API LoadReport load_state_dict(torch::nn::Module& module, const StateDict& state_dict,
                                      const LoadParams& params = {});

namespace detail {

/// A `torch::nn::ModuleHolder`, such as `nn::Attention` or `torch::nn::Linear`.
template <typename Holder>
concept HoldsModule = requires(const Holder& holder) {
  { *holder.ptr() } -> std::convertible_to<torch::nn::Module&>;
};

}  // namespace detail

/// Returns the parameters and buffers of the module that a holder refers to.
template <detail::HoldsModule Holder>
StateDict state_dict(const Holder& module) {
  return state_dict(static_cast<const torch::nn::Module&>(*module.ptr()));
}

/// Loads the module that a holder refers to.
template <detail::HoldsModule Holder>
LoadReport load_state_dict(const Holder& module, const StateDict& state_dict, const LoadParams& params = {}) {
  return load_state_dict(static_cast<torch::nn::Module&>(*module.ptr()), state_dict, params);
}

}  // namespace attend
