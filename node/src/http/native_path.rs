//! The paths of what namespaces have under `/v1`, taken apart at their slashes as they were sent. Nothing is decoded.

/// Under this stand the accounts.
pub(super) const ACCOUNTS: &str = "/v1/accounts/";

/// `/v1/accounts/{account}/namespaces/{namespace}/{page}`, and up to three parts after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NativePath<'a> {
    pub(super) account: &'a str,
    pub(super) namespace: &'a str,
    pub(super) page: &'a str,
    pub(super) rest: [Option<&'a str>; 3],
}

impl<'a> NativePath<'a> {
    /// `None` where it is none of these, or one that names no account or no namespace.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix(ACCOUNTS)?.split('/');
        let account = parts.next().filter(|part| !part.is_empty())?;
        parts.next().filter(|part| *part == "namespaces")?;
        let namespace = parts.next().filter(|part| !part.is_empty())?;
        let page = parts.next()?;
        let rest = [parts.next(), parts.next(), parts.next()];
        parts.next().is_none().then_some(Self { account, namespace, page, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart_as_it_was_sent() {
        let path = NativePath::parse("/v1/accounts/a/namespaces/n/sets/k%2F/members/").unwrap();
        let expected = NativePath {
            account: "a",
            namespace: "n",
            page: "sets",
            rest: [Some("k%2F"), Some("members"), Some("")],
        };
        assert_eq!(path, expected);
        for path in [
            "/v1/accounts//namespaces/n/sets",
            "/v1/accounts/a/namespaces//sets",
            "/v1/accounts/a/namespaces/n",
            "/v1/accounts/a/spaces/n/sets",
            "/v1/accounts/a/namespaces/n/sets/k/members/m/more",
            "/v2/accounts/a/namespaces/n/sets",
        ] {
            assert_eq!(NativePath::parse(path), None, "{path}");
        }
    }
}
