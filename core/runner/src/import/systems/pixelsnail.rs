//! PixelSNAIL of rosinality/vq-vae-2-pytorch: `pixelsnail.py` and `train_pixelsnail.py`, a prior for each level of its VQ-VAE-2.
//! All sizes but the number of attention heads are in the shapes.

use super::{Facts, Parts, System};
use crate::import::names::Rule;
use crate::import::published::Published;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{CodeSpace, ConditionSpace, LevelInfo, TokenSpace};

pub(super) const SYSTEM: System = System {
    name: "pixelsnail",
    about: "PixelSNAIL of rosinality/vq-vae-2-pytorch",
    configuration: None,
    made_of: &["pixelsnail"],
    recognises: |published| {
        published.has("horizontal.conv.conv.weight_v") && published.has("blocks.0.resblocks.0.conv1.conv.conv.weight_v")
    },
    prepare: |_| (),
    read,
    rule,
    // Rows and columns as numbers, which are computed.
    unused: |name| name == "background",
};

/// How many times larger the map is than that of the level above.
const ENLARGED: usize = 2;

fn read(published: &Published) -> Result<Parts> {
    let side = |name: String, axis: usize| published.side(&format!("{name}.weight_v"), axis);
    let block = |i: usize| format!("blocks.{i}.resblocks.0.conv1.conv.conv.weight_v");
    let residual = |i: usize| format!("blocks.0.resblocks.{i}.conv1.conv.conv.weight_v");
    let first = "blocks.0.resblocks.0.conv1.conv.conv";
    let outputs = published.count(|i| format!("out.{i}.conv1.conv.weight_v"));
    let codes = side(format!("out.{}.conv", outputs + 1), 0)?;
    let mut fields = vec![
        format!("width: {}, blocks: {}", side(first.to_owned(), 1)?, published.count(block)),
        format!("residual_blocks: {}, residual_width: {}", published.count(residual), side(first.to_owned(), 0)?),
        format!("kernel: {}", side(first.to_owned(), 2)?),
        format!("attention: {}", published.has("blocks.0.causal_attention.query.weight_v")),
        format!("output_blocks: {outputs}, condition: none"),
    ];
    let map = [published.side("background", 2)?, published.side("background", 3)?];
    let level = |codes: usize, [height, width]: [usize; 2]| {
        let space = TokenSpace::Codes(CodeSpace { sizes: vec![codes], tables: vec![], shared: false });
        LevelInfo { height, width, channels: 1, space, scales: None }
    };
    let mut levels = vec![];
    if published.has("cond_resnet.blocks.0.conv.weight_v") {
        let stem = || "cond_resnet.blocks.0.conv".to_owned();
        fields.push(format!("condition_width: {}, condition_kernel: {}", side(stem(), 0)?, side(stem(), 2)?));
        let stack = published.count(|i| format!("cond_resnet.blocks.{}.conv1.conv.weight_v", i + 1));
        fields.push(format!("condition_blocks: {stack}"));
        levels.push(level(side(stem(), 1)?, map.map(|side| side / ENLARGED)));
    }
    levels.push(level(codes, map));
    if let Some(dropout) = published.stored_number("args/dropout") {
        fields.push(format!("dropout: {dropout}"));
    }
    Ok(Parts::Prior {
        prior: format!("pixelsnail({})", fields.join(", ")),
        levels,
        condition: ConditionSpace::None,
        null: false,
    })
}

fn rule(ours: &str, _: &Facts) -> Option<Rule> {
    ours.strip_prefix("prior.").map(Rule::same)
}
