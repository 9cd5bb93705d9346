//! Values with their derivatives along a direction, for penalties on gradients.

use rqlab_sdk::Result;
use rqlab_sdk::tensor::Tensor;
use rqlab_sdk::tensor::ops::conv::Conv2d as Strides;

/// A value and, where it is asked for, its derivative along a direction of the input (a Jacobian-vector product). Both are
/// made of recorded operations, so that the derivative has gradients of its own: second derivatives of the network.
#[derive(Debug, Clone)]
pub struct Dual {
    /// The value.
    pub value: Tensor,
    /// Its derivative, of the same shape.
    pub derivative: Option<Tensor>,
}

/// The steepness of a ramp that stands for the step at 0: what is above 1e-30 is positive.
const STEEP: f32 = 1e30;

impl Dual {
    /// A value alone.
    pub fn plain(value: &Tensor) -> Self {
        Self { value: value.clone(), derivative: None }
    }

    /// The value at which a direction begins.
    pub fn along(value: &Tensor, direction: &Tensor) -> Self {
        Self { value: value.clone(), derivative: Some(direction.clone()) }
    }

    /// A linear function whose derivative is `linear` of the derivative.
    fn linear(
        &self,
        affine: impl FnOnce(&Tensor) -> Result<Tensor>,
        linear: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        Ok(Self { value: affine(&self.value)?, derivative: self.derivative.as_ref().map(linear).transpose()? })
    }

    /// A convolution.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn conv(&self, weight: &Tensor, bias: Option<&Tensor>, how: Strides) -> Result<Self> {
        self.linear(|x| Ok(x.conv2d(weight, bias, how)?), |d| Ok(d.conv2d(weight, None, how)?))
    }

    /// Leaky ReLU.
    ///
    /// # Errors
    /// A slope below 0.
    pub fn leaky_relu(&self, below: f32) -> Result<Self> {
        let slope = || -> Result<Tensor> {
            let step = self.value.detach().mul_scalar(STEEP)?.clamp(0.0, 1.0)?;
            Ok(step.mul_scalar(1.0 - below)?.add_scalar(below)?)
        };
        self.linear(|x| Ok(x.leaky_relu(below)?), |d| Ok(d.mul(&slope()?)?))
    }

    /// Any function that is linear and has no constant, such as a blur.
    ///
    /// # Errors
    /// Those of the function.
    pub fn map(&self, function: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        self.linear(&function, &function)
    }

    /// The largest numbers of equal shares of a map.
    ///
    /// # Errors
    /// A tensor that is no map.
    pub fn adaptive_max_pool(&self, shares: [usize; 2]) -> Result<Self> {
        self.linear(
            |x| Ok(x.adaptive_max_pool(shares)?),
            |direction| Ok(self.value.adaptive_max_pool_along(direction, shares)?),
        )
    }

    /// A norm of a map `[B, .., C]` over its positions and the channels of each of `groups` groups, as `norm` computes it
    /// with the scale `weight` and a shift: a group norm, or a batch norm of a batch that is one map.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn norm(
        &self,
        groups: usize,
        weight: &Tensor,
        eps: f32,
        norm: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        self.linear(norm, |direction| {
            let (shape, channels) = (self.value.shape(), self.value.last_dim());
            let maps = if shape[0] == 0 { 1 } else { shape[0] };
            let grouped = [maps, self.value.len() / maps / channels, groups, channels / groups];
            let mean = |x: &Tensor| x.mean(&[1, 3], true);
            let (x, d) = (self.value.reshape(&grouped)?, direction.reshape(&grouped)?);
            let x = x.sub(&mean(&x)?)?;
            let deviation = mean(&x.square()?)?.add_scalar(eps)?.sqrt()?;
            let normal = x.div(&deviation)?;
            let d = d.sub(&mean(&d)?)?;
            let d = d.sub(&normal.mul(&mean(&normal.mul(&d)?)?)?)?.div(&deviation)?;
            Ok(d.reshape(shape)?.mul(weight)?)
        })
    }
}
