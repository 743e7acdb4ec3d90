//! Modules one after another.

use core::fmt;

use super::Module;
use crate::error::Result;
use crate::graph::Value;
use crate::model::Model;

/// Modules one after another, as PyTorch's `nn.Sequential`.
///
/// Made from a tuple of up to 32 modules, from a vector of boxed ones, or by [`Sequential::push`]. Children are called
/// by their position, "0", "1" and so on, unless they bring a name ([`Module::named`]).
///
/// ```
/// use swath::nn::*;
/// let mut layers = Sequential::new((Conv2d::new(1, 8, 3).named("stem"), ReLU));
/// for _ in 0..2 {
///     layers = layers.push(Conv2d::new(8, 8, 3).bias(false));
/// }
/// let model = layers.build(0)?;
/// let names: Vec<&str> = model.parameters().map(|(name, _)| name).collect();
/// assert_eq!(names, ["stem.weight", "stem.bias", "2.weight", "3.weight"]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Default)]
#[must_use]
pub struct Sequential(Vec<Box<dyn Module>>);

impl Sequential {
    /// From a tuple, or from a vector of boxed modules.
    pub fn new(modules: impl IntoModules) -> Self {
        Self(modules.into_modules())
    }

    /// Appends a module.
    pub fn push(mut self, module: impl Module + 'static) -> Self {
        self.0.push(module.boxed());
        self
    }

    /// As [`Module::build`], for whoever does not have the trait in scope.
    ///
    /// ```
    /// let model = swath::zoo::resnet18(10).build(7)?;
    /// assert_eq!(model.parameter("fc.weight")?.dims(), [10, 512]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn build(&self, seed: u64) -> Result<Model> {
        Module::build(self, seed)
    }
}

impl Module for Sequential {
    fn call(&self, x: &Value) -> Result<Value> {
        let mut x = x.clone();
        for (i, module) in self.0.iter().enumerate() {
            x = match module.name() {
                Some(_) => module.call(&x)?,
                None => x.scope(&i.to_string(), |x| module.call(x))?,
            };
        }
        Ok(x)
    }
}

impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequential of {}", self.0.len())
    }
}

/// What [`Sequential::new`] takes: tuples of modules, and vectors of boxed ones.
pub trait IntoModules {
    /// The modules in order.
    fn into_modules(self) -> Vec<Box<dyn Module>>;
}

impl IntoModules for Vec<Box<dyn Module>> {
    fn into_modules(self) -> Vec<Box<dyn Module>> {
        self
    }
}

macro_rules! tuples {
    () => {};
    ($first:ident $($rest:ident)*) => {
        impl<$first: Module + 'static, $($rest: Module + 'static),*> IntoModules for ($first, $($rest,)*) {
            #[allow(non_snake_case)] // one identifier names both the type and the element
            fn into_modules(self) -> Vec<Box<dyn Module>> {
                let ($first, $($rest,)*) = self;
                vec![$first.boxed(), $($rest.boxed()),*]
            }
        }
        tuples!($($rest)*);
    };
}
tuples!(A B C D E F G H I J K L M N O P Q R S T U V W X Y Z AA AB AC AD AE AF);
