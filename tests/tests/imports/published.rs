//! What the tests of all systems share: a case's files, a tokenizer built from what `rqlab import` wrote, what must hold of both.

use rqlab_autoencoder_resnet::{Resnet, ResnetConfig};
use rqlab_autoencoder_vit::{Vit, VitConfig};
use rqlab_autoencoder_vqvae2::{Vqvae2, Vqvae2Config};
use rqlab_quantizer_kl::{Kl, KlConfig};
use rqlab_quantizer_rq::{Rq, RqConfig};
use rqlab_quantizer_vq::{Vq, VqConfig};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::prelude::*;
use rqlab_tests::lab::{Lab, Said};
use rqlab_tests::parity::{Case, Outputs, compare};
use safetensors::SafeTensors;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of a case; none where there are no checkpoints.
pub(crate) fn case(name: &str) -> Option<PathBuf> {
    let given = env::var_os("RQLAB_CHECKPOINTS").map(PathBuf::from);
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared/checkpoints"));
    let folder = given.into_iter().chain(above).map(|folder| folder.join(name)).find(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("skipped: there is no folder shared/checkpoints/{name}");
    }
    folder
}

/// The file of weights in a case's folder that ends so.
pub(crate) fn weights(folder: &Path, ends: &[&str]) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap() != "data.safetensors");
    files.sort();
    let is_wanted = |path: &PathBuf| ends.iter().any(|end| path.extension().is_some_and(|found| found == *end));
    files.into_iter().find(is_wanted).unwrap_or_else(|| panic!("{}: no file ends in {ends:?}", folder.display()))
}

pub(crate) fn ok(lab: &Lab, arguments: &str) -> Said {
    let said = lab.run(arguments).unwrap();
    assert_eq!(said.code, Some(0), "rqlab {arguments}\n{}\n{}", said.out, said.err);
    said
}

/// A tokenizer, built by its plugins' own code from what `rqlab import` wrote.
pub(crate) struct Imported {
    pub(crate) autoencoder: Box<dyn Autoencoder>,
    pub(crate) quantizers: Vec<Box<dyn Quantizer>>,
}

impl Imported {
    pub(crate) fn read(lab: &Lab, name: &str) -> Self {
        let checkpoint = Checkpoint::load_sealed(&lab.path(&format!("imports/{name}.safetensors"))).unwrap();
        let text = |name: &str| checkpoint.metadata[name].as_str();
        let sides: Vec<usize> = text("image").split(' ').map(|side| side.parse().unwrap()).collect();
        let image = MapShape { height: sides[0], width: sides[1], channels: sides[2] };
        let params = Params::new(0);
        let cx = AutoencoderContext { image, params: params.scope("autoencoder"), components: Components::none() };
        let call = text("autoencoder");
        let autoencoder: Box<dyn Autoencoder> = match call.split('(').next().unwrap() {
            "resnet" => Box::new(Resnet::new(ResnetConfig::parse(call).unwrap(), &cx).unwrap()),
            "vqvae2" => Box::new(Vqvae2::new(Vqvae2Config::parse(call).unwrap(), &cx).unwrap()),
            _ => Box::new(Vit::new(VitConfig::parse(call).unwrap(), &cx).unwrap()),
        };
        let (call, levels) = (text("quantizer"), autoencoder.levels());
        let mut quantizers: Vec<Box<dyn Quantizer>> = Vec::new();
        for (level, latents) in levels.iter().enumerate() {
            let scope = if levels.len() == 1 { "quantizer".to_owned() } else { format!("quantizer.{level}") };
            let cx =
                QuantizerContext { latents: *latents, params: params.scope(scope), components: Components::none() };
            quantizers.push(match call.split('(').next().unwrap() {
                "rq" => Box::new(Rq::new(RqConfig::parse(call).unwrap(), &cx).unwrap()),
                "kl" => Box::new(Kl::new(KlConfig::parse(call).unwrap(), &cx).unwrap()),
                _ => Box::new(Vq::new(VqConfig::parse(call).unwrap(), &cx).unwrap()),
            });
        }
        params.load(&checkpoint.tensors).unwrap();
        Self { autoencoder, quantizers }
    }

    /// The latents of each level, and what its quantizer makes of them.
    pub(crate) fn encode(&self, images: &Tensor) -> Vec<(Tensor, Quantized)> {
        let mut levels = Vec::new();
        let mut bottleneck = |level: usize, latents: &Tensor| {
            let quantized = self.quantizers[level].quantize(latents)?;
            let out = quantized.latents.clone();
            levels.push((latents.clone(), quantized));
            Ok(out)
        };
        self.autoencoder.encode(images, &mut bottleneck, &Mode::Eval).unwrap();
        levels
    }

    pub(crate) fn decode(&self, levels: &[(Tensor, Quantized)]) -> Tensor {
        let latents: Vec<Tensor> = levels.iter().map(|(_, quantized)| quantized.latents.clone()).collect();
        self.autoencoder.decode(&latents).unwrap()
    }

    pub(crate) fn decode_tokens(&self, levels: &[(Tensor, Quantized)]) -> Tensor {
        let pairs = self.quantizers.iter().zip(levels);
        let latents: Vec<Tensor> =
            pairs.map(|(quantizer, (_, level))| quantizer.embed(&level.tokens, None).unwrap()).collect();
        self.autoencoder.decode(&latents).unwrap()
    }
}

/// The codes of a level in a shape.
pub(crate) fn codes(level: &(Tensor, Quantized), shape: &[usize]) -> Codes {
    level.1.tokens.codes().unwrap().reshape(shape).unwrap()
}

/// All expected results of a case hold.
pub(crate) fn expect(case: &Case, outputs: &Outputs) {
    let outcome = compare(&case.expect, outputs);
    assert_eq!(outcome.passed(), Some(true), "{}: {outcome}", case.name);
    eprintln!("{}: {outcome}", case.name);
}

/// Imports a case's file.
pub(crate) fn import(lab: &Lab, file: &Path, name: &str, further: &str) -> Said {
    ok(lab, &format!("import {} --as {name} {further}", file.display()))
}

/// The weights that were imported come out again with the bits of the file, under its names.
pub(crate) fn exports_its_bits(lab: &Lab, file: &Path, name: &str, of: &dyn Fn(&str) -> Option<String>) {
    ok(lab, &format!("export {name} -o out.safetensors"));
    let bytes = fs::read(lab.path("out.safetensors")).unwrap();
    let exported = SafeTensors::deserialize(&bytes).unwrap();
    let published = rqlab_weights::Checkpoint::open(file).unwrap();
    let mut compared = 0;
    for (path, tensor) in published.tensors() {
        let Some(name) = of(path) else { continue };
        let view = exported.tensor(&name).unwrap_or_else(|_| panic!("{name} is not exported"));
        let numbers = published.read_f32(tensor).unwrap();
        let bits: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(view.data() == bits, "{name} has other bits");
        compared += 1;
    }
    assert_eq!(compared, exported.names().len(), "what is exported and what is published");
}

/// The argument that tells the size of a case's images, where no configuration lies beside its file.
pub(crate) fn size(case: &Case) -> String {
    let images = case.map("in.x").unwrap();
    format!("--size {}x{}", images.shape()[1], images.shape()[2])
}
