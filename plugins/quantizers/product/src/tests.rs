#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::testing::toys::ToyQuantizers;

const LATENTS: MapShape = MapShape { height: 3, width: 2, channels: 6 };

fn with_toys(cx: &QuantizerContext) -> QuantizerContext {
    QuantizerContext { components: Components::new(ToyQuantizers), ..cx.clone() }
}

fn product(text: &str) -> Result<Product> {
    let cx = QuantizerContext { latents: LATENTS, params: Params::new(1), components: Components::none() };
    Product::new(ProductConfig::parse(text).unwrap(), &with_toys(&cx))
}

fn random(seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(72), &[2, 3, 2, 6]).unwrap()
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    for text in ["product(of: toy_codes)", "product(of: toy_codes(codebook: 5), parts: 3, shared: true, losses: sum)"] {
        let config = ProductConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(LATENTS, |cx| Product::new(config.clone(), &with_toys(cx)));
    }
}

#[test]
fn tables_add_up_to_the_latents() {
    let product = product("product(of: toy_codes, parts: 3)").unwrap();
    let quantized = product.quantize(&random(2)).unwrap();
    let (level, codes) = (product.level(), quantized.tokens.codes().unwrap());
    assert_eq!((level.sizes(), level.token_shape(2)), (&[8, 8, 8][..], [2, 3, 2, 3]));
    assert_eq!(product.activations(), 3 * 6 * 8, "those of the held ones");
    let mut sum = Tensor::zeros(&[2, 3, 2, 6]);
    for (depth, table) in level.codes().unwrap().tables.iter().enumerate() {
        sum = sum.add(&table.embedding(&codes.column(depth).unwrap()).unwrap()).unwrap();
    }
    assert_eq!(sum.to_vec(), quantized.latents.to_vec());
}

#[test]
fn parts_that_are_not_coded_yet_are_left_whole() {
    let product = product("product(of: toy_codes, parts: 2)").unwrap();
    let x = random(3);
    let quantized = product.quantize(&x).unwrap();
    for (depth, energy) in quantized.residual_energy.to_vec().into_iter().enumerate() {
        let partial = product.embed(&quantized.tokens, Some(depth + 1)).unwrap();
        assert!((partial.mse(&x).unwrap().item().unwrap() - energy).abs() < 1e-5);
    }
    let first = product.embed(&quantized.tokens, Some(1)).unwrap();
    assert!(first.as_slice().chunks(6).all(|row| row[3..] == [0.0; 3] && row[..3] != [0.0; 3]));
}

#[test]
fn channels_that_do_not_part_are_refused() {
    let refused = product("product(of: toy_codes, parts: 4)").unwrap_err().to_string();
    assert!(refused.contains("6 channels") && refused.contains("`parts`"), "{refused}");
}
