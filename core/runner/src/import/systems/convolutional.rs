//! What VQGAN and its many descendants have in common: the convolutional autoencoder `resnet`, whose parameters have VQGAN's
//! published names.

use super::list;
use crate::import::published::Published;
use rqlab_sdk::Result;

/// Sides of images, where neither configuration nor user says: what the published models are for.
const PUBLISHED_SIDE: usize = 256;

/// The sizes of one.
pub(super) struct Convolutional {
    pub(super) image: [usize; 3],
    width: usize,
    multipliers: Vec<usize>,
    encoder: Side,
    decoder: Side,
    mid_blocks: usize,
    mid_attention: bool,
    pub(super) groups: usize,
    latent: usize,
    /// None without convolutions into and out of the code space.
    code_channels: Option<usize>,
    /// Further fields, where they are not the defaults.
    pub(super) further: Vec<String>,
}

/// What encoder and decoder each have of their own.
#[derive(PartialEq)]
struct Side {
    /// Residual blocks of a level.
    blocks: usize,
    /// Whether each level has attention, the finest first.
    attends: Vec<bool>,
}

impl Convolutional {
    /// From the configuration `ddconfig` that taming and kakaobrain share, at a path in the configuration beside the file.
    pub(super) fn of_ddconfig(published: &Published, path: &str, code_channels: usize) -> Result<Self> {
        let size = |name: &str| published.size_of(&format!("{path}/{name}"));
        let sizes = |name: &str| published.sizes_of(&format!("{path}/{name}"));
        let (channels, resolution) = (size("in_channels")?, size("resolution")?);
        if size("out_ch")? != channels {
            return Err(published.unsupported(&format!("{path}/out_ch"), "images have as many channels at both ends"));
        }
        if published.flag(&format!("{path}/double_z"), false) {
            return Err(published.unsupported(&format!("{path}/double_z"), "this is a tokenizer of codes"));
        }
        if !published.flag(&format!("{path}/resamp_with_conv"), true) {
            let why = "maps are halved and doubled by convolutions";
            return Err(published.unsupported(&format!("{path}/resamp_with_conv"), why));
        }
        let (multipliers, asked, blocks) = (sizes("ch_mult")?, sizes("attn_resolutions")?, size("num_res_blocks")?);
        // The published code passes over resolutions that no level has.
        let attends: Vec<bool> = (0..multipliers.len()).map(|level| asked.contains(&(resolution >> level))).collect();
        let [height, width] = published.size.unwrap_or([resolution; 2]);
        let dropout = published.number(&format!("{path}/dropout")).filter(|dropout| *dropout > 0.0);
        Ok(Self {
            image: [height, width, channels],
            width: size("ch")?,
            multipliers,
            encoder: Side { blocks, attends: attends.clone() },
            decoder: Side { blocks: blocks + 1, attends },
            mid_blocks: 2,
            mid_attention: true,
            groups: 32,
            latent: size("z_channels")?,
            code_channels: Some(code_channels),
            further: dropout.map(|dropout| format!("dropout: {dropout}")).into_iter().collect(),
        })
    }

    /// From the shapes of the tensors alone. `name` gives the published name of one of `resnet`'s.
    pub(super) fn of_shapes(published: &Published, name: impl Fn(&str) -> String, groups: usize) -> Result<Self> {
        let width = published.side(&name("encoder.conv_in.weight"), 0)?;
        let levels = published.count(|i| name(&format!("encoder.down.{i}.block.0.conv1.weight")));
        let channels = |i: usize| published.side(&name(&format!("encoder.down.{i}.block.0.conv2.weight")), 0);
        let multiple = |i: usize| match channels(i)? {
            channels if width > 0 && channels > 0 && channels.is_multiple_of(width) => Ok(channels / width),
            channels => Err(published.wrong(format!("level {i} has {channels} channels, no multiple of {width}"))),
        };
        let side = |part: &str| Side {
            blocks: published.count(|j| name(&format!("{part}.0.block.{j}.conv1.weight"))),
            attends: (0..levels).map(|i| published.has(&name(&format!("{part}.{i}.attn.0.norm.weight")))).collect(),
        };
        let post_quant_conv = name("post_quant_conv.weight");
        let code_channels = published.has(&post_quant_conv).then(|| published.side(&post_quant_conv, 1)).transpose()?;
        let [height, wide] = published.size.unwrap_or([PUBLISHED_SIDE; 2]);
        Ok(Self {
            image: [height, wide, published.side(&name("encoder.conv_in.weight"), 1)?],
            width,
            multipliers: (0..levels).map(multiple).collect::<Result<_>>()?,
            encoder: side("encoder.down"),
            decoder: side("decoder.up"),
            mid_blocks: published.count(|j| name(&format!("encoder.mid.block_{}.conv1.weight", j + 1))),
            mid_attention: published.has(&name("encoder.mid.attn_1.norm.weight")),
            groups,
            latent: published.side(&name("decoder.conv_in.weight"), 1)?,
            code_channels,
            further: vec![],
        })
    }

    /// How often it halves the images.
    pub(super) fn halvings(&self) -> usize {
        self.multipliers.len().saturating_sub(1)
    }

    /// The call of the component. Resolutions are counted from a number that every level halves.
    pub(super) fn call(&self) -> String {
        let finest = 1usize << self.multipliers.len().min(32);
        let attention = |side: &Side| {
            let attends = side.attends.iter().enumerate().filter(|(_, attends)| **attends);
            list(&attends.map(|(level, _)| finest >> level).collect::<Vec<_>>())
        };
        let mut fields = vec![
            format!("width: {}", self.width),
            format!("multipliers: {}", list(&self.multipliers)),
            format!("blocks: {}", self.encoder.blocks),
        ];
        if self.decoder.blocks != self.encoder.blocks + 1 {
            fields.push(format!("decoder_blocks: {}", self.decoder.blocks));
        }
        if self.encoder.attends.iter().chain(&self.decoder.attends).any(|attends| *attends) {
            fields.push(format!("attention: {}", attention(&self.encoder)));
            if self.decoder.attends != self.encoder.attends {
                fields.push(format!("decoder_attention: {}", attention(&self.decoder)));
            }
            fields.push(format!("resolution: {finest}"));
        }
        if self.mid_blocks != 2 {
            fields.push(format!("mid_blocks: {}", self.mid_blocks));
        }
        if !self.mid_attention {
            fields.push("mid_attention: false".to_owned());
        }
        fields.push(format!("groups: {}, latent: {}", self.groups, self.latent));
        fields.push(match self.code_channels {
            Some(channels) => format!("code_channels: {channels}"),
            None => "quant_conv: false".to_owned(),
        });
        fields.extend(self.further.iter().cloned());
        format!("resnet({})", fields.join(", "))
    }
}
