//! The pooling operators as layers.

use super::{AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d, Module};
use crate::error::Result;
use crate::graph::Value;

impl Module for MaxPool2d {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(*self, &[x]))
    }
}

impl Module for AvgPool2d {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(*self, &[x]))
    }
}

impl Module for AdaptiveAvgPool2d {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(*self, &[x]))
    }
}

impl Module for AdaptiveMaxPool2d {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(*self, &[x]))
    }
}
