//! The published ways from pictures to numbers.

use serde::{Deserialize, Serialize};

/// Whose practice a measure follows. A reading without one follows the lab's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OpenAI's guided-diffusion (ADM).
    Adm,
    /// clean-fid.
    Clean,
    /// TiTok and MaskBit.
    Titok,
    /// LlamaGen.
    Llamagen,
    /// kakaobrain's RQ-VAE-Transformer.
    Rqvae,
    /// dgm-eval, on DINOv2's features.
    Dgm,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Adm, Self::Clean, Self::Titok, Self::Llamagen, Self::Rqvae, Self::Dgm];

    /// Its name, which columns end in.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adm => "adm",
            Self::Clean => "clean",
            Self::Titok => "titok",
            Self::Llamagen => "llamagen",
            Self::Rqvae => "rqvae",
            Self::Dgm => "dgm",
        }
    }

    /// The protocol of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// What it pins, by aspect.
    pub fn pins(self) -> Pins {
        const ROUNDED: &str = "rounded";
        const TENSORFLOW: &str = "Inception-v3 of 2015; to 299 x 299 bilinear as TensorFlow 1 does (upper left corners aligned), (level - 128) / 128";
        const TRAINING: &str = "the training images";
        const ADM_NEIGHBOURS: &str = "k = 3, borders included, of all samples and 10,000 training images; squared distances in f64, where ADM has half precision";
        const NONE: &str = "none";
        const OF_THE_LAB: &str = "the lab's";
        const ADDED_TO_ADM: &str = "density, coverage, gKID, gFID of infinitely many samples";
        match self {
            Self::Adm => Pins {
                levels: ROUNDED,
                extractor: TENSORFLOW,
                reference: TRAINING,
                neighbours: ADM_NEIGHBOURS,
                inception_score: "without the layer's bias; the mean over runs of 5,000",
                distortions: OF_THE_LAB,
                added: ADDED_TO_ADM,
            },
            Self::Clean => Pins {
                levels: ROUNDED,
                extractor: "Inception-v3 of 2015; to 299 x 299 bicubic as Pillow does in floats (widened where it shrinks), \
                            (level - 128) / 128",
                reference: TRAINING,
                neighbours: NONE,
                inception_score: NONE,
                distortions: OF_THE_LAB,
                added: "gFID of infinitely many samples",
            },
            Self::Titok => Pins {
                levels: "decoded pictures cut down, half a level darker; originals exact",
                extractor: TENSORFLOW,
                reference: TRAINING,
                neighbours: ADM_NEIGHBOURS,
                inception_score: "without the layer's bias; of all images at once",
                distortions: OF_THE_LAB,
                added: ADDED_TO_ADM,
            },
            Self::Llamagen => Pins {
                levels: "decoded pictures rounded, originals left as floats for PSNR and SSIM",
                extractor: TENSORFLOW,
                reference: TRAINING,
                neighbours: ADM_NEIGHBOURS,
                inception_score: "without the layer's bias; the mean over runs of 5,000",
                distortions: "PSNR per image in [0, 1]; SSIM with a uniform window of 7 x 7, sample covariance and a range of 2.0 on \
                              [0, 1], which inflates it",
                added: ADDED_TO_ADM,
            },
            Self::Rqvae => Pins {
                levels: "left as floats",
                extractor: "Inception-v3 of 2015; to 299 x 299 bilinear as PyTorch does, in [-1, 1]",
                reference: TRAINING,
                neighbours: NONE,
                inception_score: "with the layer's bias; the mean over 10 equal runs",
                distortions: OF_THE_LAB,
                added: "gKID, gFID of infinitely many samples",
            },
            Self::Dgm => Pins {
                levels: ROUNDED,
                extractor: "the class token of DINOv2; to 224 x 224 bicubic, widened where it shrinks",
                reference: TRAINING,
                neighbours: "k = 5, borders excluded, of 10,000 samples and 10,000 training images",
                inception_score: NONE,
                distortions: OF_THE_LAB,
                added: NONE,
            },
        }
    }
}

/// What a protocol pins beside the network's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pins {
    levels: &'static str,
    extractor: &'static str,
    reference: &'static str,
    neighbours: &'static str,
    inception_score: &'static str,
    distortions: &'static str,
    added: &'static str,
}

impl Pins {
    /// What the lab pins, where no protocol is named.
    pub const LAB: Self = Self {
        levels: "left as floats",
        extractor: "the lab's own classifier of this data set, at the images' own size",
        reference: "the test images that reconstructions are of, too",
        neighbours: "precision and recall: k = 3, borders included; density and coverage: k = 5, borders excluded",
        inception_score: "the classifier's own; the mean over 5 equal runs",
        distortions: "PSNR per image, mean over images; SSIM with an 11 x 11 Gaussian window (sigma 1.5), windows inside the image",
        added: "all is the lab's",
    };

    /// Each aspect by its name, in the order to show.
    pub fn aspects(self) -> [(&'static str, &'static str); 7] {
        [
            ("to 8 bits", self.levels),
            ("extractor", self.extractor),
            ("samples against", self.reference),
            ("precision, recall, density, coverage", self.neighbours),
            ("inception score", self.inception_score),
            ("PSNR and SSIM", self.distortions),
            ("added to it for samples", self.added),
        ]
    }
}

/// What holds for every protocol, and what none can pin here.
pub const COMMON: [&str; 6] = [
    "Decoded pictures are clamped to [-1, 1] first. Reconstructions are compared with the test images that they are of.",
    "Kernel distances are means over 100 subsets of 1,000; distances of infinitely many samples are led on from 15 sizes, from a tenth of \
     the samples (5,000 at most) to all. A protocol that knows neither is extended by them.",
    "Not pinned: how the data set's files were resized and cropped before anything saw them. That is the data plugin's, the same for \
     originals, training images and reconstructions of one data set; published numbers are of each system's own crop.",
    "Not pinned: which classes samples are drawn of (`evaluation.labels`), and the guidance, u + s (c - u) with its schedule; papers differ \
     in both.",
    "Published numbers take 50,000 images. Fewer make another number, not a noisier one: values compare at equal numbers alone.",
    "A number is called FID, KID or inception score where the network is Inception-v3 with the weights whose digest `evaluation` states, \
     and by another name elsewhere.",
];
