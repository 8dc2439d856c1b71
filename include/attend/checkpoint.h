#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <torch/csrc/api/include/torch/ordered_dict.h>

#include <map>
#include <string>
#include <vector>

namespace torch::nn {
class Module;
}

namespace attend {

/// Tensors by name: the state of a module in a file, and whatever else a file of tensors holds.
struct Checkpoint {
  torch::OrderedDict<std::string, at::Tensor> tensors{};
  std::map<std::string, std::string> metadata = {};  ///< text by name; safetensors files alone have it
};

/// Reads a safetensors file. The tensors, on the CPU, are views of the file mapped into memory: nothing is
/// read before it is used, what a program writes to them stays its own, and the file must not be shortened
/// while they live (`save_safetensors` replaces a file instead). Booleans, and tensors that the file leaves
/// unaligned, are copied.
///
/// Errors (c10::Error): every file that is not what the format demands: a file or header cut short, a header
/// that is too long, not UTF-8, not JSON or of other fields, names that occur twice, unknown dtypes, sizes
/// that overflow or differ from the data's, and tensors that overlap, leave holes or end before the file
/// does.
ATTEND_API Checkpoint load_safetensors(const std::string& path);

/// The same of a file in memory: `bytes`, uint8 [N] on the CPU, whose memory the tensors share.
ATTEND_API Checkpoint parse_safetensors(const at::Tensor& bytes);

/// Writes a safetensors file. A reader of `path`, and whoever comes after a crash at any moment, finds the
/// old file or the new one, whole: the new one is written beside it, flushed to the disk, and takes its
/// place. Errors (c10::Error): a name or text that is not UTF-8, the name `__metadata__`, a tensor that is
/// not dense or whose dtype the format lacks, and what the system says where it can't write; the old file
/// stays.
ATTEND_API void save_safetensors(const Checkpoint& checkpoint, const std::string& path);

/// Reads what Python's `torch.save(model.state_dict(), path)` writes (a zip file; not the format from before
/// PyTorch 1.6). Dictionaries and lists may be nested: a name is the path of keys, joined by dots, and values
/// that are no tensors are left out. Parameters, any strides, and tensors that share memory come back as they
/// were saved, on the CPU; the tensors are views of the mapped file, as `load_safetensors` says.
///
/// A file can't run code: the pickle in it may name OrderedDict, the functions that rebuild tensors and
/// parameters, the storage types and the dtypes. Errors (c10::Error): every other name, which the message
/// says, and every file that is damaged.
ATTEND_API Checkpoint load_pytorch(const std::string& path);

/// The same of a file in memory: `bytes`, uint8 [N] on the CPU, whose memory the tensors share.
ATTEND_API Checkpoint parse_pytorch(const at::Tensor& bytes);

/// The parameters and buffers of a module by name, sharing their memory.
ATTEND_API Checkpoint state_dict(const torch::nn::Module& module);

/// Replaces a part of a name: `from` is a run of whole components (what stands between dots), and becomes
/// `to` wherever it occurs; with a ^ before it, at the beginning only. Where `to` is empty, its dot goes too:
/// {"^model", ""} makes "model.out.weight" "out.weight", {"LayerNorm.gamma", "norm.weight"} renames within.
struct Rename {
  std::string from;
  std::string to;
};

struct LoadOptions {
  /// Applied to each name of the checkpoint, one after the other.
  std::vector<Rename> rename = {};
  /// Whether every name of the module must be in the checkpoint, and the other way round.
  bool strict = true;
};

/// The names that were not matched; empty where `strict` was asked for.
struct LoadReport {
  std::vector<std::string> missing;     ///< of the module, not in the checkpoint
  std::vector<std::string> unexpected;  ///< of the checkpoint, not in the module
};

/// Copies the tensors of a checkpoint into the parameters and buffers of the same names; dtypes and devices
/// are converted. Errors (c10::Error): missing, unexpected (where strict) and misshapen names, and those that
/// rename makes equal, the first ten of each kind in one message; then nothing was changed.
ATTEND_API LoadReport load_into(torch::nn::Module& module, const Checkpoint& checkpoint,
                                const LoadOptions& options = {});

}  // namespace attend
