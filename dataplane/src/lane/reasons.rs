//! Reasons and their counters, written once: an enum, and a struct with one number for each of its variants.

/// Makes an enum of reasons and the struct that counts them, whose fields are named as the variants are in
/// configuration and reports (snake case).
macro_rules! reasons {
    (
        $(#[$of_enum:meta])* enum $reason:ident;
        $(#[$of_struct:meta])* struct $counts:ident;
        $($(#[$of_variant:meta])* $variant:ident $field:ident,)+
    ) => {
        $(#[$of_enum])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $reason {
            $($(#[$of_variant])* $variant,)+
        }

        impl $reason {
            /// All of them, in order.
            pub const ALL: &[$reason] = &[$($reason::$variant,)+];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $($reason::$variant => stringify!($field),)+
                }
            }
        }

        $(#[$of_struct])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $counts {
            $($(#[$of_variant])* pub $field: u64,)+
        }

        impl $counts {
            /// The counter of a reason.
            pub fn of(&mut self, reason: $reason) -> &mut u64 {
                match reason {
                    $($reason::$variant => &mut self.$field,)+
                }
            }

            /// All of them.
            pub fn total(&self) -> u64 {
                0 $(+ self.$field)+
            }

            /// Adds those of another.
            pub fn add(&mut self, other: &$counts) {
                $(self.$field += other.$field;)+
            }
        }
    };
}

pub(super) use reasons;
