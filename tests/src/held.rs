//! The quantizers of this workspace, for those that hold others.

use rqlab_sdk::config::Call;
use rqlab_sdk::contracts::Builder;
use rqlab_sdk::prelude::*;

/// Builds the quantizers that others hold, by their names.
#[derive(Debug)]
pub struct Held;

fn refused<T>(call: &Call) -> Result<T> {
    Err(Error::Unsupported(format!("there is no quantizer `{}` to hold", call.name)))
}

macro_rules! build {
    ($call:ident, $cx:ident, $($name:literal => $plugin:ident :: $Config:ident, $Quantizer:ident;)+) => {
        match $call.name.as_str() {
            $($name => Ok(Box::new($plugin::$Quantizer::new($plugin::$Config::parse(&$call.text)?, $cx)?)),)+
            _ => refused($call),
        }
    };
}

impl Builder for Held {
    fn quantizer(&self, call: &Call, cx: &QuantizerContext) -> Result<Box<dyn Quantizer>> {
        build! { call, cx,
            "vq" => rqlab_quantizer_vq::VqConfig, Vq;
            "rq" => rqlab_quantizer_rq::RqConfig, Rq;
            "fsq" => rqlab_quantizer_fsq::FsqConfig, Fsq;
            "lfq" => rqlab_quantizer_lfq::LfqConfig, Lfq;
            "bsq" => rqlab_quantizer_bsq::BsqConfig, Bsq;
            "simvq" => rqlab_quantizer_simvq::SimVqConfig, SimVq;
            "ibq" => rqlab_quantizer_ibq::IbqConfig, Ibq;
            "residual" => rqlab_quantizer_residual::ResidualConfig, Residual;
            "product" => rqlab_quantizer_product::ProductConfig, Product;
            "multi_scale" => rqlab_quantizer_multi_scale::MultiScaleConfig, MultiScale;
        }
    }

    fn autoencoder(&self, call: &Call, _: &AutoencoderContext) -> Result<Box<dyn Autoencoder>> {
        refused(call)
    }

    fn prior(&self, call: &Call, _: &PriorContext) -> Result<Box<dyn Prior>> {
        refused(call)
    }

    fn objective(&self, call: &Call, _: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        refused(call)
    }
}
