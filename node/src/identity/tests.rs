//! How identities are made and refused: every step of a join, and every way a token or folder can be wrong.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_token_carries_an_identity_from_the_cluster_to_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, node) = (folder.path().join("cluster"), folder.path().join("deep/node"));
    let made = init_cluster(&cluster).unwrap();
    let token = join_token(&cluster, "fra-1", HOUR).unwrap();
    assert!(token.bytes().all(|byte| byte.is_ascii_graphic()), "one line without spaces");
    let joined = init_node(&node, &token).unwrap();
    let identity = Identity::load(&node).unwrap();
    assert_eq!((joined.pop.as_str(), joined.cluster), ("fra-1", made.cluster));
    assert_eq!((identity.pop.as_str(), identity.cluster), ("fra-1", made.cluster));
    assert_eq!(identity.digest_secret, load_digest_secret(&cluster).unwrap());
    for (path, mode) in [
        (cluster.join(CA_KEY_FILE), 0o600),
        (cluster.join(DIGEST_SECRET_FILE), 0o600),
        (node.join(KEY_FILE), 0o600),
        (node.join(DIGEST_SECRET_FILE), 0o600),
        (node.join(CERTIFICATE_FILE), 0o644),
    ] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no drafts are left");
}

#[test]
fn nothing_is_ever_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = folder.path().join("cluster");
    init_cluster(&cluster).unwrap();
    let key = std::fs::read(cluster.join(CA_KEY_FILE)).unwrap();
    let token = join_token(&cluster, "fra", HOUR).unwrap();
    assert!(matches!(init_cluster(&cluster), Err(IdentityError::Occupied { .. })));
    assert!(matches!(init_node(&cluster, &token), Err(IdentityError::Occupied { .. })));
    assert_eq!(std::fs::read(cluster.join(CA_KEY_FILE)).unwrap(), key);
}

#[test]
fn an_interrupted_init_is_cleared_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join(".cluster.incomplete");
    std::fs::create_dir(&draft).unwrap();
    std::fs::write(draft.join(CA_KEY_FILE), "half a k").unwrap();
    std::fs::create_dir(folder.path().join("cluster")).unwrap();
    init_cluster(&folder.path().join("cluster")).unwrap();
    assert!(!draft.exists());
}

#[test]
fn a_damaged_folder_says_which_file() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = folder.path().join("cluster");
    init_cluster(&cluster).unwrap();
    let other = join_token(&cluster, "ams", HOUR).unwrap();
    init_node(&folder.path().join("other"), &other).unwrap();
    let others_certificate =
        std::fs::read_to_string(folder.path().join("other").join(CERTIFICATE_FILE)).unwrap();
    let cases: &[(&str, &str)] = &[
        (CLUSTER_FILE, "cluster = 'zz'"),
        (CLUSTER_FILE, "cluster = '00000000000000000000000000000000'"),
        (CERTIFICATE_FILE, ""),
        (CERTIFICATE_FILE, &others_certificate),
        (KEY_FILE, "-----BEGIN PRIVATE KEY-----\n"),
        (CA_FILE, "ca"),
        (DIGEST_SECRET_FILE, "abcd"),
    ];
    for (number, (file, contents)) in cases.iter().enumerate() {
        let node = folder.path().join(number.to_string());
        init_node(&node, &join_token(&cluster, "fra", HOUR).unwrap()).unwrap();
        std::fs::write(node.join(file), contents).unwrap();
        match Identity::load(&node) {
            Err(IdentityError::Malformed { path, .. }) => assert_eq!(path, node.join(file)),
            other => panic!("{file} with {contents:?}: {other:?}"),
        }
    }
    let missing = Identity::load(&folder.path().join("nowhere")).unwrap_err();
    assert!(missing.to_string().contains("littoral node init"), "{missing}");
}

#[test]
fn a_pop_is_a_dns_label() {
    for (pop, valid) in [
        ("a", true),
        ("fra-1", true),
        (&"x".repeat(MAX_POP_BYTES)[..], true),
        ("", false),
        (&"x".repeat(MAX_POP_BYTES + 1), false),
        ("-a", false),
        ("a-", false),
        ("FRA", false),
        ("a.b", false),
        ("a_b", false),
        ("é", false),
    ] {
        assert_eq!(check_pop(pop).is_ok(), valid, "{pop:?}");
    }
}
