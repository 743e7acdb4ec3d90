/// Methods that set an option of a builder, each the field of its name: `setters!(Builder { /// What it is. name: argument, })`, where the
/// argument converts into the field.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($builder:ident { $($(#[$doc:meta])* $name:ident: $argument:ty,)* }) => {
        impl $builder {
            $($(#[$doc])*
            #[allow(clippy::useless_conversion)] // some arguments are what the field holds
            pub fn $name(mut self, $name: $argument) -> Self {
                self.$name = $name.into();
                self
            })*
        }
    };
}
