//! The operators that change an image's size without weights, as layers.

use super::{CenterCrop, Crop, Module, Upsample};
use crate::error::Result;
use crate::graph::{Op, Value};

impl Module for Upsample {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(Op::Upsample(*self), &[x]))
    }
}

impl Module for Crop {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(Op::Crop(self.op()), &[x]))
    }
}

impl Module for CenterCrop {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(Op::Crop(self.op()), &[x]))
    }
}
