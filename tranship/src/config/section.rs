//! What the schema's macros expand to: sections of named fields that read and print as text.

use std::sync::LazyLock;

use super::schema;

/// One field of a section.
#[derive(Debug)]
pub struct Field {
    /// Its name, as in the file.
    pub name: &'static str,
    /// What it means, in one line.
    pub help: &'static str,
    /// What a value looks like, for messages: `a size such as 4GiB`.
    pub form: &'static str,
    /// Whether it is a list, which may be given piece by piece.
    pub list: bool,
    /// Whether its flag alone means `true`.
    pub switch: bool,
    /// A second, shorter flag.
    pub short_flag: Option<&'static str>,
}

/// A section: fields reached by name, as text.
pub trait Section {
    /// The fields in the order of the schema.
    fn fields(&self) -> &'static [Field];

    /// The value of a field, printed; `None` if there is no such field.
    fn get(&self, field: &str) -> Option<String>;

    /// Reads `text` into a field.
    ///
    /// # Errors
    /// The reason, beginning with the quoted text; an unknown field is a reason as well.
    fn set(&mut self, field: &str, text: &str) -> Result<(), String>;
}

/// One setting of the whole configuration, under all its names.
#[derive(Debug)]
pub struct Setting {
    /// The section's name.
    pub section: &'static str,
    /// The field in it.
    pub field: &'static Field,
    /// `dram.capacity`.
    pub key: String,
    /// `TRANSHIP_DRAM_CAPACITY`.
    pub variable: String,
    /// `dram-capacity`, without the dashes in front.
    pub flag: String,
}

/// Every setting, in the order of the schema.
pub fn settings() -> &'static [Setting] {
    static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        let config = schema::Config::default();
        let mut settings = Vec::new();
        for section in schema::Config::SECTIONS.iter().copied() {
            let fields = config.section(section).map_or(&[][..], Section::fields);
            settings.extend(fields.iter().map(|field| Setting {
                section,
                field,
                key: format!("{section}.{}", field.name),
                variable: format!("TRANSHIP_{section}_{}", field.name).to_uppercase(),
                flag: format!("{section}-{}", field.name).replace('_', "-"),
            }));
        }
        settings
    });
    &SETTINGS
}

/// Declares a section: a struct with defaults, and its [`Section`] implementation.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $Section:ident {
            $(
                #[doc = $help:literal]
                $field:ident $(, also $short:literal)?: $Type:ty = $default:expr,
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Section {
            $(#[doc = $help] pub $field: $Type,)+
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::config::Section for $Section {
            fn fields(&self) -> &'static [$crate::config::Field] {
                const FIELDS: &[$crate::config::Field] = &[$($crate::config::Field {
                    name: stringify!($field),
                    help: $help.trim_ascii(),
                    form: <$Type as $crate::config::Value>::FORM,
                    list: <$Type as $crate::config::Value>::LIST,
                    switch: <$Type as $crate::config::Value>::SWITCH,
                    short_flag: $crate::config::section::short_flag!($($short)?),
                },)+];
                FIELDS
            }

            fn get(&self, field: &str) -> Option<String> {
                match field {
                    $(stringify!($field) => Some(self.$field.to_string()),)+
                    _ => None,
                }
            }

            fn set(&mut self, field: &str, text: &str) -> Result<(), String> {
                match field {
                    $(stringify!($field) => {
                        self.$field = $crate::config::Value::read(text)?;
                        Ok(())
                    })+
                    _ => Err(format!("{text:?}: no field {field:?} to put it into")),
                }
            }
        }
    };
}

macro_rules! short_flag {
    () => {
        None
    };
    ($short:literal) => {
        Some($short)
    };
}

/// Declares the configuration as a list of sections.
macro_rules! config {
    ($($name:ident: $Section:ident,)+) => {
        /// The effective configuration.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Config {
            $(#[doc = concat!("`[", stringify!($name), "]`")] pub $name: $Section,)+
            /// `[[tenant]]`
            pub tenants: Vec<Tenant>,
        }

        impl Config {
            /// The names of the sections.
            pub const SECTIONS: &[&str] = &[$(stringify!($name)),+];

            /// A section by name.
            #[must_use]
            pub fn section(&self, name: &str) -> Option<&dyn $crate::config::Section> {
                match name {
                    $(stringify!($name) => Some(&self.$name),)+
                    _ => None,
                }
            }

            /// A section by name, to change.
            pub fn section_mut(
                &mut self,
                name: &str,
            ) -> Option<&mut dyn $crate::config::Section> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }
        }
    };
}

pub(super) use {config, section, short_flag};
