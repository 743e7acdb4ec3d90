//! What direct convolution chooses for known layers on known cores: the same on any machine. A rule or a core's fact
//! that is changed shows here, as the layers that it is felt by.

use super::*;

/// A stem, ResNet-50's and VGG-16's layers, 1x1 layers with a stride and of few output channels, and one of many
/// images: images, input channels, output channels, size, kernel and stride.
const LAYERS: [[usize; 6]; 11] = [
    [1, 3, 64, 224, 7, 2],
    [1, 64, 64, 56, 3, 1],
    [1, 64, 256, 56, 1, 1],
    [1, 256, 64, 56, 1, 1],
    [1, 128, 128, 56, 3, 2],
    [1, 256, 512, 56, 1, 2],
    [1, 512, 512, 7, 3, 1],
    [1, 64, 64, 224, 3, 1],
    [1, 512, 512, 28, 3, 1],
    [1, 144, 24, 56, 1, 1],
    [16, 512, 128, 28, 1, 1],
];

/// Pixels and output channels of the tile that covers most; and images, rows, columns, blocks of output channels and of
/// input channels (of a stem: channels) that go through together.
type Chosen = ([usize; 2], [usize; 5]);

fn plan(core: Core, [n, ic, oc, size, k, stride]: [usize; 6]) -> Direct {
    let shape = ConvShape::builder([n, ic, size, size], [oc, ic, k, k]).padding(k / 2).stride(stride).build().unwrap();
    let input = if ic < BLOCK { Layout::Nchw } else { Layout::Blocked };
    Direct::new(&shape, core, input, Layout::Blocked)
}

fn chosen(core: Core, layer: [usize; 6]) -> Chosen {
    let d = plan(core, layer);
    let (_, blocks, tiles) = d.covers(0).next().unwrap();
    let inner = d.x.interior().len();
    let width = tiles.width(tiles.rows, inner, blocks);
    let (_, mr) = pieces(inner, tiles.rows.max_mr(width)).next().unwrap();
    let channels = width * BLOCK - if tiles.half { BLOCK / 2 } else { 0 };
    let Blocking { images, rows, cols, panel, chunk } = d.blocking;
    ([mr, channels], [images, rows, cols, panel, chunk])
}

#[test]
fn known_layers_on_known_cores() {
    let cores: [(&str, Core, [Chosen; LAYERS.len()]); 6] = [
        (
            "Zen 3",
            Core::ZEN3,
            [
                ([6, 16], [1, 19, 112, 4, 3]),
                ([6, 16], [1, 14, 56, 4, 4]),
                ([6, 16], [1, 1, 396, 4, 4]),
                ([6, 16], [1, 1, 132, 4, 16]),
                ([6, 16], [1, 7, 28, 4, 4]),
                ([6, 16], [1, 1, 198, 2, 16]),
                ([5, 16], [1, 7, 7, 2, 16]),
                ([6, 16], [1, 224, 224, 4, 4]),
                ([6, 16], [1, 28, 28, 4, 16]),
                ([3, 24], [1, 1, 396, 2, 9]),
                ([6, 16], [1, 1, 132, 4, 8]),
            ],
        ),
        (
            "Zen 4",
            Core::ZEN4,
            [
                ([14, 32], [1, 28, 112, 4, 3]),
                ([14, 32], [1, 56, 56, 4, 4]),
                ([6, 64], [1, 1, 784, 4, 4]),
                ([6, 64], [1, 1, 3136, 4, 16]),
                ([14, 32], [1, 7, 28, 2, 8]),
                ([14, 32], [1, 1, 392, 2, 16]),
                ([5, 48], [1, 7, 7, 3, 16]),
                ([14, 32], [1, 224, 224, 4, 4]),
                ([13, 32], [1, 28, 28, 4, 16]),
                ([9, 24], [1, 1, 3136, 2, 9]),
                ([14, 32], [1, 1, 196, 4, 8]),
            ],
        ),
        (
            "Zen 5",
            Core::ZEN5,
            [
                ([14, 32], [1, 28, 112, 4, 3]),
                ([14, 32], [1, 56, 56, 4, 4]),
                ([6, 64], [1, 1, 784, 4, 4]),
                ([6, 64], [1, 1, 3136, 4, 16]),
                ([14, 32], [1, 7, 28, 2, 8]),
                ([14, 32], [1, 1, 392, 2, 16]),
                ([5, 48], [1, 7, 7, 3, 16]),
                ([14, 32], [1, 224, 224, 4, 4]),
                ([13, 32], [1, 28, 28, 4, 16]),
                ([14, 32], [1, 1, 3136, 2, 9]),
                ([14, 32], [1, 1, 196, 4, 8]),
            ],
        ),
        (
            "Granite Rapids",
            Core::GRANITE_RAPIDS,
            [
                ([14, 32], [1, 56, 112, 4, 3]),
                ([14, 32], [1, 56, 56, 4, 4]),
                ([6, 64], [1, 1, 1568, 4, 4]),
                ([6, 64], [1, 1, 3136, 4, 16]),
                ([14, 32], [1, 7, 28, 4, 8]),
                ([6, 64], [1, 1, 784, 4, 16]),
                ([5, 48], [1, 7, 7, 3, 32]),
                ([14, 32], [1, 224, 224, 4, 4]),
                ([13, 32], [1, 28, 28, 4, 16]),
                ([14, 32], [1, 1, 3136, 2, 9]),
                ([14, 32], [1, 1, 392, 4, 8]),
            ],
        ),
        (
            "Neoverse V2",
            Core::NEOVERSE_V2,
            [
                ([5, 16], [1, 56, 112, 4, 3]),
                ([5, 16], [1, 56, 56, 4, 4]),
                ([5, 16], [1, 1, 1570, 4, 4]),
                ([5, 16], [1, 1, 785, 4, 16]),
                ([5, 16], [1, 7, 28, 4, 8]),
                ([5, 16], [1, 1, 784, 4, 16]),
                ([5, 16], [1, 7, 7, 2, 32]),
                ([5, 16], [1, 14, 224, 4, 4]),
                ([5, 16], [1, 28, 28, 4, 16]),
                ([5, 16], [1, 1, 1570, 2, 9]),
                ([5, 16], [1, 1, 395, 4, 8]),
            ],
        ),
        (
            "Apple M1",
            Core::APPLE_M1,
            [
                ([5, 16], [1, 112, 112, 4, 3]),
                ([5, 16], [1, 56, 56, 4, 4]),
                ([5, 16], [1, 1, 3136, 2, 4]),
                ([5, 16], [1, 1, 785, 4, 16]),
                ([5, 16], [1, 14, 28, 4, 8]),
                ([5, 16], [1, 1, 784, 4, 16]),
                ([5, 16], [1, 7, 7, 4, 32]),
                ([5, 16], [1, 14, 224, 2, 4]),
                ([5, 16], [1, 28, 28, 4, 32]),
                ([5, 16], [1, 1, 1570, 2, 9]),
                ([5, 16], [1, 1, 395, 4, 8]),
            ],
        ),
    ];
    for (name, core, wanted) in cores {
        for (layer, wanted) in LAYERS.into_iter().zip(wanted) {
            assert_eq!(chosen(core, layer), wanted, "{layer:?} on {name}");
        }
    }
}

/// A core that differs from a known one in one fact chooses otherwise, where that fact counts, and not where it does
/// not.
#[test]
fn each_fact_counts() {
    let [stem, .., narrow, many] = LAYERS;
    let zen4 = Core::ZEN4;
    assert_ne!(chosen(Core { l2_bytes: 2 << 20, ..zen4 }, stem), chosen(zen4, stem));
    assert_ne!(chosen(Core { halves_gain: false, ..zen4 }, narrow), chosen(zen4, narrow));
    assert_eq!(chosen(Core { halves_gain: false, ..zen4 }, many), chosen(zen4, many));
    // With more multiply-adds under way a tile of few sums costs as much as one of many.
    let set = |in_flight| TileSet::new(Core { in_flight, ..zen4 }, Access::Blocked1, 576);
    assert_eq!([set(4), set(40)].map(|set| set.cycles(1, 1)), [5, 41]);
    assert!(core::ptr::eq(set(4), TileSet::new(zen4, Access::Blocked1, 576)), "a set is made once");
}
