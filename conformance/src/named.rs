//! Lists of things that a command line names: an enum, all of its values, and their names.

macro_rules! named {
    (
        $(#[doc = $what:literal])+
        $kind:ident:
        $($(#[doc = $doc:literal])+ $value:ident => $name:literal,)+
    ) => {
        $(#[doc = $what])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind {
            $($(#[doc = $doc])+ $value,)+
        }

        impl $kind {
            pub const ALL: &'static [$kind] = &[$($kind::$value,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $($kind::$value => $name,)+
                }
            }

            pub fn from_name(name: &str) -> Option<$kind> {
                $kind::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}

pub(crate) use named;
