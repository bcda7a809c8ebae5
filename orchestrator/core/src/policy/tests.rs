use super::*;

#[test]
fn an_empty_draft_is_the_default() {
    assert_eq!(
        Policy::validate(&PolicyDraft::default()),
        Ok(Policy::default())
    );
}

fn keys(draft: &PolicyDraft) -> Vec<&'static str> {
    let error = Policy::validate(draft).unwrap_err();
    error.mistakes.iter().map(|mistake| mistake.key).collect()
}

fn budget(region: u16, roots: u32) -> RegionBudget {
    RegionBudget { region, roots }
}

fn site(subnet: &str, site: u32) -> SiteRule {
    SiteRule {
        subnet: subnet.parse().unwrap(),
        site,
        region: 1,
    }
}

#[test]
fn every_mistake_is_reported_with_its_key() {
    let draft = PolicyDraft {
        target_roots: Some(0),
        max_planned_roots: Some(0),
        max_depth: Some(65),
        overhead_permille: Some(999),
        max_children: Some(0),
        cdn_lease_bps: Some(1),
        stripes: Some(9),
        max_planned_moves_per_viewer_hour: Some(61),
        cdn_budget_by_region: vec![budget(3, 0)],
        sites: vec![site("10.0.0.0/8", 0)],
        ..PolicyDraft::default()
    };
    let all = [
        "target_roots",
        "max_planned_roots",
        "max_depth",
        "overhead_permille",
        "max_children",
        "stripes",
        "max_planned_moves_per_viewer_hour",
        "cdn_lease_bps",
        "cdn_budget_by_region",
        "sites",
    ];
    assert_eq!(keys(&draft), all);
    let error = Policy::validate(&draft).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("max_depth must be between 1 and 64")
    );
}

#[test]
fn fewer_planned_roots_than_wanted_is_a_mistake() {
    let draft = PolicyDraft {
        target_roots: Some(3),
        max_planned_roots: Some(2),
        ..PolicyDraft::default()
    };
    assert_eq!(keys(&draft), ["max_planned_roots"]);
}

#[test]
fn tables_name_nothing_twice_and_are_of_bounded_length() {
    let twice = PolicyDraft {
        cdn_budget_by_region: vec![budget(3, 1), budget(4, 1), budget(3, 2)],
        // The same subnet, written with other host bits.
        sites: vec![site("10.0.0.0/8", 1), site("10.1.2.3/8", 2)],
        ..PolicyDraft::default()
    };
    assert_eq!(keys(&twice), ["cdn_budget_by_region", "sites"]);
    let of = |rows: u16| PolicyDraft {
        cdn_budget_by_region: (0..rows).map(|region| budget(region, 1)).collect(),
        ..PolicyDraft::default()
    };
    assert_eq!(keys(&of(1025)), ["cdn_budget_by_region"]);
    assert!(Policy::validate(&of(1024)).is_ok());
}

#[test]
fn the_limits_themselves_are_allowed() {
    for (stripes, moves) in [(1, 0), (8, 60)] {
        let draft = PolicyDraft {
            stripes: Some(stripes),
            max_planned_moves_per_viewer_hour: Some(moves),
            ..PolicyDraft::default()
        };
        let policy = Policy::validate(&draft).unwrap();
        assert_eq!(u32::from(policy.stripes()), stripes);
        assert_eq!(policy.max_planned_moves_per_viewer_hour(), moves);
    }
    let none = PolicyDraft {
        stripes: Some(0),
        ..PolicyDraft::default()
    };
    assert_eq!(keys(&none), ["stripes"]);
}

#[test]
fn a_region_has_its_budget_and_others_have_none() {
    let draft = PolicyDraft {
        cdn_budget_by_region: vec![budget(9, 2), budget(1, 5)],
        ..PolicyDraft::default()
    };
    let policy = Policy::validate(&draft).unwrap();
    for (region, roots) in [(1, Some(5)), (9, Some(2)), (0, None), (5, None)] {
        assert_eq!(policy.cdn_budget_of(region), roots, "{region}");
    }
}

#[test]
fn metered_battery_and_mobile_peers_serve_only_where_the_policy_says_so() {
    let strict = Policy::default();
    let lenient = Policy::validate(&PolicyDraft {
        allow_metered: Some(true),
        allow_battery: Some(true),
        allow_mobile: Some(true),
        ..PolicyDraft::default()
    })
    .unwrap();
    let plain = PeerProfile::default();
    let metered = PeerProfile {
        metered: true,
        ..plain
    };
    let on_battery = PeerProfile {
        on_battery: true,
        ..plain
    };
    let mobile = PeerProfile {
        device: DeviceClass::Mobile,
        ..plain
    };
    let contributor = PeerRole::Contributor;
    assert!(strict.may_serve(contributor, &plain));
    for profile in [metered, on_battery, mobile] {
        assert!(!strict.may_serve(contributor, &profile), "{profile:?}");
        assert!(lenient.may_serve(contributor, &profile), "{profile:?}");
        assert!(strict.may_serve(PeerRole::Relay, &profile), "{profile:?}");
        assert!(!lenient.may_serve(PeerRole::Consumer, &profile));
    }
}

#[test]
fn an_edge_costs_its_rate_and_the_overhead_rounded_up() {
    let policy = Policy::default();
    for (rate, cost) in [(1_500_000, 1_800_000), (0, 1), (1, 2), (u64::MAX, u64::MAX)] {
        assert_eq!(policy.edge_cost(rate), cost);
    }
}

#[test]
fn an_explicit_number_of_children_holds_for_relays_too() {
    let draft = PolicyDraft {
        max_children: Some(3),
        ..PolicyDraft::default()
    };
    let policy = Policy::validate(&draft).unwrap();
    assert_eq!(policy.max_children(PeerRole::Relay), 3);
    assert_eq!(Policy::default().max_children(PeerRole::Relay), 256);
    assert_eq!(policy.max_children(PeerRole::Consumer), 0);
}
