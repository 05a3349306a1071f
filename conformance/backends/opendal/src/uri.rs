//! URIs: which service, where in it, and its options.

use std::collections::BTreeMap;

const SCHEME: &str = "opendal://";

/// A URI that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Fs { root: String },
    Redis { endpoint: String, root: String, options: Options },
    S3 { bucket: String, root: String, options: Options },
}

/// What stands after the question mark.
pub type Options = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("the URI does not begin with {SCHEME}")]
    Scheme,
    #[error("the service is none of fs, redis and s3")]
    Service,
    #[error("the URI has no place after the service")]
    NoPlace,
    #[error("a path of files may not lead upwards")]
    Upwards,
    #[error("there is no option of this name: {name}")]
    Option { name: String },
}

impl Location {
    pub fn parse(uri: &str) -> Result<Location, UriError> {
        let rest = uri.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let place = place.trim_end_matches('/');
        let (service, place) = place.split_once('/').unwrap_or((place, ""));
        let known = match service {
            "fs" => &[][..],
            "redis" => &["db", "username"],
            "s3" => &["region", "endpoint"],
            _ => return Err(UriError::Service),
        };
        let options = parse_options(options, known)?;
        if place.is_empty() {
            return Err(UriError::NoPlace);
        }
        let (first, rest) = place.split_once('/').unwrap_or((place, ""));
        let root = format!("/{rest}");
        Ok(match service {
            "redis" => Location::Redis { endpoint: format!("redis://{first}"), root, options },
            "s3" => Location::S3 { bucket: first.to_owned(), root, options },
            _ if place.split('/').any(|part| part == "..") => return Err(UriError::Upwards),
            _ => Location::Fs { root: format!("/{place}") },
        })
    }
}

fn parse_options(text: &str, known: &[&str]) -> Result<Options, UriError> {
    let mut options = Options::new();
    for option in text.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if !known.contains(&name) {
            return Err(UriError::Option { name: name.to_owned() });
        }
        options.insert(name.to_owned(), value.to_owned());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_its_form() {
        let fs = Location::Fs { root: "/tmp/store".to_owned() };
        assert_eq!(Location::parse("opendal://fs/tmp/store"), Ok(fs.clone()));
        assert_eq!(Location::parse("opendal://fs/tmp/store/"), Ok(fs));
        let redis = |options: &[(&str, &str)]| Location::Redis {
            endpoint: "redis://127.0.0.1:6379".to_owned(),
            root: "/ns".to_owned(),
            options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        assert_eq!(Location::parse("opendal://redis/127.0.0.1:6379/ns"), Ok(redis(&[])));
        assert_eq!(Location::parse("opendal://redis/127.0.0.1:6379/ns/?db=3"), Ok(redis(&[("db", "3")])));
        let s3 = Location::parse("opendal://s3/bucket?region=eu-1&endpoint=http://localhost:9000");
        assert!(matches!(s3, Ok(Location::S3 { bucket, root, options })
            if bucket == "bucket" && root == "/" && options["endpoint"] == "http://localhost:9000"));
    }

    #[test]
    fn everything_else_is_refused() {
        for (uri, error) in [
            ("", UriError::Scheme),
            ("dir:///tmp", UriError::Scheme),
            ("opendal://", UriError::Service),
            ("opendal://ftp/host/x", UriError::Service),
            ("opendal://fs", UriError::NoPlace),
            ("opendal://fs/", UriError::NoPlace),
            ("opendal://fs/a/../b", UriError::Upwards),
            ("opendal://redis/h/ns?password=x", UriError::Option { name: "password".to_owned() }),
        ] {
            assert_eq!(Location::parse(uri), Err(error), "{uri}");
        }
    }
}
