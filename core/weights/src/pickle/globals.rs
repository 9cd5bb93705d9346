//! What a checkpoint's pickle may name: exact pairs of module and name. Nothing behind a name is ever run; the list says what
//! stands for it here.

use crate::Dtype;
use crate::error::{Fault, Found};

/// What a name in a pickle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    /// `_rebuild_tensor` and its versions 2 and 3: makes a view of a storage.
    RebuildTensor,
    /// `_rebuild_parameter`: gives its tensor back.
    RebuildParameter,
    /// `_rebuild_from_type_v2`: calls one of the others.
    RebuildFromType,
    /// The class of storages of a type; none for bytes of any type.
    Storage(Option<Dtype>),
    /// A type of elements.
    Dtype(Dtype),
    /// A dictionary by another name; made empty.
    Dict,
    /// `torch.Size`, made of a tuple.
    Size,
    /// A class whose objects are bags of named values: `argparse.Namespace`.
    Namespace,
    /// A class whose objects mean nothing to weights: they are kept by the class's full name, and what is in them
    /// is dropped.
    Opaque(&'static str),
}

impl Global {
    /// What it is as a value of its own, uncalled: classes and types of elements are kept by their names.
    pub(super) fn as_value(self) -> Found<&'static str> {
        match self {
            Self::Opaque(name) => Ok(name),
            Self::Dtype(dtype) => Ok(dtype.name()),
            Self::Dict => Ok("dict"),
            Self::Size => Ok("Size"),
            Self::Namespace => Ok("Namespace"),
            Self::Storage(_) => Ok("Storage"),
            Self::RebuildTensor | Self::RebuildParameter | Self::RebuildFromType => {
                Err(Fault::new("a function that makes tensors stands for a value"))
            }
        }
    }
}

/// What the pair stands for; none if it has no place in a checkpoint.
pub(crate) fn find(module: &str, name: &str) -> Option<Global> {
    let dtype = |dtype| Some(Global::Dtype(dtype));
    let storage = |dtype| Some(Global::Storage(Some(dtype)));
    match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
            Some(Global::RebuildTensor)
        }
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Some(Global::RebuildParameter),
        ("torch._tensor", "_rebuild_from_type_v2") => Some(Global::RebuildFromType),
        ("torch", "HalfStorage") => storage(Dtype::F16),
        ("torch", "BFloat16Storage") => storage(Dtype::BF16),
        ("torch", "FloatStorage") => storage(Dtype::F32),
        ("torch", "DoubleStorage") => storage(Dtype::F64),
        ("torch", "CharStorage") => storage(Dtype::I8),
        ("torch", "ShortStorage") => storage(Dtype::I16),
        ("torch", "IntStorage") => storage(Dtype::I32),
        ("torch", "LongStorage") => storage(Dtype::I64),
        ("torch", "ByteStorage") => storage(Dtype::U8),
        ("torch", "BoolStorage") => storage(Dtype::Bool),
        ("torch" | "torch.storage", "UntypedStorage") => Some(Global::Storage(None)),
        ("torch", "float16" | "half") => dtype(Dtype::F16),
        ("torch", "bfloat16") => dtype(Dtype::BF16),
        ("torch", "float32" | "float") => dtype(Dtype::F32),
        ("torch", "float64" | "double") => dtype(Dtype::F64),
        ("torch", "int8") => dtype(Dtype::I8),
        ("torch", "int16" | "short") => dtype(Dtype::I16),
        ("torch", "int32" | "int") => dtype(Dtype::I32),
        ("torch", "int64" | "long") => dtype(Dtype::I64),
        ("torch", "uint8") => dtype(Dtype::U8),
        ("torch", "uint16") => dtype(Dtype::U16),
        ("torch", "uint32") => dtype(Dtype::U32),
        ("torch", "uint64") => dtype(Dtype::U64),
        ("torch", "bool") => dtype(Dtype::Bool),
        ("torch", "Size") => Some(Global::Size),
        ("collections", "OrderedDict" | "defaultdict") => Some(Global::Dict),
        ("builtins" | "__builtin__", "dict") => Some(Global::Dict),
        ("argparse", "Namespace") => Some(Global::Namespace),
        _ => OPAQUE
            .iter()
            .find(|class| class.rsplit_once('.') == Some((module, name)))
            .map(|class| Global::Opaque(class)),
    }
}

/// What training scripts leave beside the weights: numbers, paths, settings, states of callbacks.
const OPAQUE: &[&str] = &[
    "__builtin__.bool",
    "__builtin__.bytes",
    "__builtin__.complex",
    "__builtin__.float",
    "__builtin__.frozenset",
    "__builtin__.int",
    "__builtin__.list",
    "__builtin__.long",
    "__builtin__.set",
    "__builtin__.slice",
    "__builtin__.str",
    "__builtin__.tuple",
    "__builtin__.unicode",
    "__builtin__.xrange",
    "builtins.bool",
    "builtins.bytes",
    "builtins.complex",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "builtins.range",
    "builtins.set",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "_codecs.encode",
    "collections.Counter",
    "collections.deque",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "easydict.EasyDict",
    "fractions.Fraction",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.callbacks.early_stopping.EarlyStopping",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.bool_",
    "numpy.dtype",
    "numpy.float16",
    "numpy.float32",
    "numpy.float64",
    "numpy.int32",
    "numpy.int64",
    "numpy.ndarray",
    "numpy.uint8",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "numpy.dtypes.Float16DType",
    "numpy.dtypes.Float32DType",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Int32DType",
    "numpy.dtypes.Int64DType",
    "numpy.dtypes.BoolDType",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.BytesNode",
    "omegaconf.nodes.EnumNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.PathNode",
    "omegaconf.nodes.StringNode",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.PurePosixPath",
    "pathlib._local.WindowsPath",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Buffer",
    "torch.nn.parameter.Parameter",
    "torch.torch_version.TorchVersion",
    "typing.Any",
    "typing.Dict",
    "typing.List",
    "typing.Optional",
    "typing.Tuple",
    "typing.Union",
    "yacs.config.CfgNode",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_pairs_are_found() {
        assert_eq!(find("torch", "FloatStorage"), Some(Global::Storage(Some(Dtype::F32))));
        for (module, name) in [
            ("os", "system"),
            ("torch", "serialization.os.system"),
            ("torch.FloatStorage", ""),
            ("builtins", "eval"),
            ("builtins", "bytearray"),
            ("builtins", "getattr"),
            ("builtins", "object"),
            ("torch.storage", "_load_from_bytes"),
            ("", ""),
        ] {
            assert_eq!(find(module, name), None, "{module}.{name}");
        }
    }
}
