//! Which member a person means: a PoP's name, or a replica id or the beginning of one.
//!
//! The rule this file upholds: a name that could be two members is no name; both are listed.

use littoral::api::members::{Member, MembersReport};

use super::super::failure::Failure;

/// The member with this PoP, this id, or an id that begins so.
pub(super) fn find<'a>(report: &'a MembersReport, name: &str) -> Result<&'a Member, Failure> {
    let by_pop: Vec<&Member> = report.members.iter().filter(|member| member.pop == name).collect();
    let found = if by_pop.is_empty() {
        let id = name.to_ascii_lowercase();
        let is_meant = |member: &&Member| !id.is_empty() && member.replica.starts_with(&id);
        report.members.iter().filter(is_meant).collect()
    } else {
        by_pop
    };
    match found[..] {
        [member] => Ok(member),
        [] => {
            let pops: Vec<&str> = report.members.iter().map(|member| member.pop.as_str()).collect();
            Err(Failure::not_found(format!("no member is called {name:?}"))
                .hint(format!("the members are: {}", pops.join(", "))))
        }
        _ => {
            let listed: Vec<String> =
                found.iter().map(|member| format!("\n  {}  {}", member.replica, member.pop)).collect();
            Err(Failure::usage(format!("{name:?} could be each of these:{}", listed.concat()))
                .hint("name one by its replica id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral::api::members::Stage;

    fn check(name: &str, expected: Result<&str, &str>) {
        let member = |pop: &str, replica: &str| Member {
            pop: pop.into(),
            region: String::new(),
            replica: replica.into(),
            is_this: false,
            connected: true,
            stage: Some(Stage::Member),
            draining: false,
            lacks_ops: 0,
            unsent_ops: 0,
            joined_ms: 0,
            last_known_ms: 0,
            kept_because: None,
        };
        let report = MembersReport {
            pop: "ams".into(),
            replica: "ab12".into(),
            stage: Stage::Member,
            copy: None,
            members: vec![
                member("ams", "ab12"),
                member("fra", "ab34"),
                member("fra", "cd56"),
                member("cd", "ef78"),
            ],
            removed: Vec::new(),
        };
        match (find(&report, name), expected) {
            (Ok(found), Ok(replica)) => assert_eq!(found.replica, replica, "{name}"),
            (Err(Failure::Told { what, .. }), Err(words)) => assert!(what.contains(words), "{what}"),
            (found, expected) => panic!("{name}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_member_is_named_by_pop_or_by_the_beginning_of_its_id() {
        check("ams", Ok("ab12"));
        check("AB3", Ok("ab34"));
        // A PoP's name goes before an id that begins so.
        check("cd", Ok("ef78"));
        check("cd5", Ok("cd56"));
        check("ab", Err("ab34  fra"));
        check("fra", Err("cd56  fra"));
        check("sin", Err("no member is called"));
        check("", Err("no member is called"));
    }
}
