//! The operators that change an image's size without weights, as layers.

use super::{CenterCrop, Crop, Module, Upsample};
use crate::error::Result;
use crate::graph::Value;

impl Module for Upsample {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(*self, &[x]))
    }
}

impl Module for Crop {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(self.op(), &[x]))
    }
}

impl Module for CenterCrop {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(self.op(), &[x]))
    }
}
