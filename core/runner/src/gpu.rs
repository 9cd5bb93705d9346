//! Which device to compute on, and what of CUDA a machine has.

use rqlab_sdk::plugin::FEATURES;
use rqlab_sdk::tensor::Device;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// What a user says about the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if this build can use one that is here, else the CPU.
    Auto,
    /// This one.
    Named(Device),
    /// This one, which was left to us to choose.
    Chosen(Device),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Named(device) | Self::Chosen(device) => device.fmt(f),
        }
    }
}

impl DeviceChoice {
    /// The device, and why it is that one if that was left to us.
    pub fn resolve(self) -> (Device, Option<String>) {
        match self {
            Self::Named(device) | Self::Chosen(device) => (device, None),
            Self::Auto if !is_built_in() => {
                let gpu = match Cuda::here().gpu {
                    true => "; there is an NVIDIA GPU: `rqlab doctor` says what it takes to use it",
                    false => "",
                };
                (Device::Cpu, Some(format!("this rqlab is built without CUDA{gpu}")))
            }
            Self::Auto => match Device::Cuda(0).open() {
                Ok(()) => (Device::Cuda(0), Some("it is the first GPU".to_owned())),
                Err(error) => (Device::Cpu, Some(format!("no GPU can be used ({error})"))),
            },
        }
    }
}

/// Whether this program was built with the feature `cuda`.
pub fn is_built_in() -> bool {
    FEATURES.split(',').any(|feature| feature == "cuda")
}

/// What of CUDA a machine has: all four parts are needed to build with it, and the first two to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cuda {
    /// Whether the system shows an NVIDIA GPU.
    pub gpu: bool,
    /// The driver's library.
    pub driver: Option<PathBuf>,
    /// The compiler `nvcc`.
    pub compiler: Option<PathBuf>,
    /// The toolkit: a folder with `include/cuda.h`.
    pub toolkit: Option<PathBuf>,
}

/// Variables that name a toolkit, and where one lies if none does: what the build of cudarc looks at.
const TOOLKIT_VARIABLES: [&str; 3] = ["CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
const TOOLKITS: [&str; 4] = ["usr", "usr/local/cuda", "opt/cuda", "usr/lib/cuda"];
/// Where drivers put their library, if `LD_LIBRARY_PATH` does not say: distributions, containers, WSL, NixOS.
const DRIVERS: [&str; 9] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib64/nvidia",
    "usr/lib",
    "usr/local/nvidia/lib64",
    "usr/local/nvidia/lib",
    "usr/lib/wsl/lib",
    "run/opengl-driver/lib",
];

impl Cuda {
    /// What this machine has, by its files: nothing is started.
    pub fn here() -> Self {
        Self::find(Path::new("/"), |name| env::var_os(name))
    }

    fn find(root: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let listed = |name: &str| {
            let list = variable(name).unwrap_or_default();
            env::split_paths(&list).collect::<Vec<PathBuf>>()
        };
        let file = |folders: Vec<PathBuf>, name: &str| folders.into_iter().map(|f| f.join(name)).find(|f| f.is_file());
        let under = |folders: &[&str]| folders.iter().map(|folder| root.join(folder)).collect::<Vec<_>>();
        let named = TOOLKIT_VARIABLES.iter().filter_map(|name| variable(name)).map(PathBuf::from);
        let toolkits: Vec<PathBuf> = named.chain(under(&TOOLKITS)).collect();
        let compilers = listed("PATH").into_iter().chain(toolkits.iter().map(|toolkit| toolkit.join("bin")));
        let drivers = listed("LD_LIBRARY_PATH").into_iter().chain(under(&DRIVERS));
        let wsl = root.join("dev/dxg").exists() && root.join("usr/lib/wsl/lib/libcuda.so.1").exists();
        Self {
            gpu: wsl || root.join("dev/nvidiactl").exists() || root.join("proc/driver/nvidia/gpus").is_dir(),
            driver: file(drivers.collect(), "libcuda.so.1"),
            compiler: file(compilers.collect(), "nvcc"),
            toolkit: toolkits.into_iter().find(|toolkit| toolkit.join("include/cuda.h").is_file()),
        }
    }

    /// What is to be done for this GPU to be used, in order; nothing where there is none.
    pub fn missing(&self, built_in: bool) -> Vec<&'static str> {
        let steps = [
            (self.driver.is_none(), "install NVIDIA's driver"),
            (
                !built_in && (self.compiler.is_none() || self.toolkit.is_none()),
                "install a CUDA toolkit, or name its folder in CUDA_PATH",
            ),
            (!built_in, "build with CUDA: `RQLAB_FEATURES=cuda just build`"),
        ];
        steps.into_iter().filter(|(missing, _)| self.gpu && *missing).map(|(_, step)| step).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::fs;

    fn touch(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn a_machine_without_cuda_lacks_nothing() {
        let root = tempfile::tempdir().unwrap();
        let cuda = Cuda::find(root.path(), |_| None);
        assert_eq!((cuda.clone(), cuda.missing(false)), (Cuda::default(), vec![]));
    }

    #[test]
    fn a_gpu_asks_for_driver_toolkit_and_feature_in_turn() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let missing = |built_in| Cuda::find(root, |_| None).missing(built_in).len();
        touch(root, "dev/nvidiactl");
        assert_eq!((missing(false), missing(true)), (3, 1));
        touch(root, "usr/lib64/libcuda.so.1");
        assert_eq!((missing(false), missing(true)), (2, 0));
        touch(root, "usr/local/cuda/include/cuda.h");
        assert_eq!(missing(false), 2, "headers without a compiler");
        touch(root, "usr/local/cuda/bin/nvcc");
        assert_eq!((missing(false), missing(true)), (1, 0));
        let cuda = Cuda::find(root, |_| None);
        assert_eq!(
            (cuda.toolkit, cuda.driver),
            (Some(root.join("usr/local/cuda")), Some(root.join("usr/lib64/libcuda.so.1")))
        );
    }

    #[test]
    fn variables_come_before_the_usual_places() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, "usr/local/cuda/include/cuda.h");
        touch(root, "mine/include/cuda.h");
        touch(root, "drivers/libcuda.so.1");
        touch(root, "tools/nvcc");
        let cuda = Cuda::find(root, |name| match name {
            "CUDA_ROOT" => Some(root.join("mine").into()),
            "LD_LIBRARY_PATH" => Some(env::join_paths([root.join("none"), root.join("drivers")]).unwrap()),
            "PATH" => Some(root.join("tools").into()),
            _ => None,
        });
        let found = |part: &Option<PathBuf>| part.as_ref().map(|path| path.strip_prefix(root).unwrap().to_owned());
        assert_eq!(found(&cuda.toolkit), Some("mine".into()));
        assert_eq!(found(&cuda.driver), Some("drivers/libcuda.so.1".into()));
        assert_eq!((found(&cuda.compiler), cuda.gpu), (Some("tools/nvcc".into()), false));
    }
}
