//! Pascal VOC's annotations: boxes with classes, in XML.

use std::path::{Path, PathBuf};

use roxmltree::{Document, Node};

use super::{Files, entries, fault};
use crate::data::dataset::Dataset;
use crate::data::sample::{LabelledBox, Sample};
use crate::error::Result;
use crate::file;
use crate::random::Random;
use crate::rect::Rect;

/// Bytes of the longest list or annotation.
const LONGEST_TEXT: usize = 16 << 20;

/// Pictures with boxes in a folder as Pascal VOC lays it out: `JPEGImages/X.jpg`, `Annotations/X.xml`, and lists of names
/// in `ImageSets/Main/LIST.txt`.
///
/// VOC counts pixels from 1 and includes the last one, so the box 1, 1, 2, 2 becomes the square from 0 to 2.
///
/// ```no_run
/// use swath::data::{Dataset, Voc};
/// let train = Voc::open("bccd", "train")?;
/// println!("{} pictures of {:?}", train.len(), train.classes());
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug)]
pub struct Voc {
    files: Files,
    boxes: Vec<Vec<LabelledBox>>,
    classes: Vec<String>,
}

impl Voc {
    /// Reads the annotations of a list, such as `train`. The classes are those of all annotations in the folder, in the order
    /// of their names, so that they are the same for every list.
    ///
    /// # Errors
    /// If a file is missing or is not what it should be.
    pub fn open(folder: impl AsRef<Path>, list: &str) -> Result<Self> {
        let folder = folder.as_ref();
        let annotations = folder.join("Annotations");
        let mut classes = Vec::new();
        for file in entries(&annotations, |p| p.extension().is_some_and(|e| e == "xml"))? {
            classes.extend(read(&file)?.into_iter().map(|object| object.class));
        }
        classes.sort_unstable();
        classes.dedup();
        let list = folder.join("ImageSets/Main").join(format!("{list}.txt"));
        let (mut paths, mut boxes) = (Vec::new(), Vec::new());
        for name in text(&list)?.split_whitespace() {
            let objects = read(&annotations.join(format!("{name}.xml")))?;
            boxes.push(objects.into_iter().map(|object| object.labelled(&classes)).collect());
            paths.push(picture(folder, name, &list)?);
        }
        Ok(Self { files: Files::new(paths), boxes, classes })
    }

    /// Whether pictures stay in memory once they were read, a byte a value; `false` by default.
    pub fn keep(mut self, keep: bool) -> Self {
        self.files.keep(keep);
        self
    }
}

/// The file of a picture of that name.
fn picture(folder: &Path, name: &str, list: &Path) -> Result<PathBuf> {
    let path = |ending: &str| folder.join("JPEGImages").join(format!("{name}.{ending}"));
    let found = ["jpg", "jpeg", "png"].map(path).into_iter().find(|p| p.is_file());
    found.ok_or_else(|| fault(list, format!("names `{name}`, but there is no {}", path("jpg").display())))
}

fn text(path: &Path) -> Result<String> {
    file::read_text(path, LONGEST_TEXT)
}

/// An object as its file has it.
struct Object {
    class: String,
    rect: Rect,
    difficult: bool,
}

impl Object {
    fn labelled(self, classes: &[String]) -> LabelledBox {
        // The list holds the classes of all files.
        let class = classes.binary_search(&self.class).unwrap_or(0);
        LabelledBox { class, rect: self.rect, difficult: self.difficult }
    }
}

/// The objects of an annotation.
fn read(path: &Path) -> Result<Vec<Object>> {
    let text = text(path)?;
    let document = Document::parse(&text).map_err(|e| fault(path, format!("no XML: {e}")))?;
    let root = document.root_element();
    if root.tag_name().name() != "annotation" {
        let problem = format!("no VOC annotation: its root is <{}>, not <annotation>", root.tag_name().name());
        return Err(fault(path, problem));
    }
    let objects = root.children().filter(|n| n.has_tag_name("object")).enumerate();
    objects.map(|(i, n)| object(n).map_err(|problem| fault(path, format!("object {i}: {problem}")))).collect()
}

fn object(node: Node<'_, '_>) -> Result<Object, String> {
    let rect = child(node, "bndbox")?;
    let [left, top, right, bottom] = ["xmin", "ymin", "xmax", "ymax"].map(|name| number(rect, name));
    let (left, top, right, bottom) = (left? - 1.0, top? - 1.0, right?, bottom?);
    if left >= right || top >= bottom {
        return Err(format!("its box from {left}, {top} to {right}, {bottom} has no area"));
    }
    let class = child(node, "name")?.text().unwrap_or_default().trim().to_string();
    let difficult = child(node, "difficult").is_ok_and(|n| n.text().is_some_and(|t| t.trim() == "1"));
    Ok(Object { class, rect: Rect::new(left.max(0.0), top.max(0.0), right, bottom), difficult })
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Result<Node<'a, 'i>, String> {
    node.children().find(|n| n.has_tag_name(name)).ok_or_else(|| format!("has no <{name}>"))
}

fn number(node: Node<'_, '_>, name: &str) -> Result<f32, String> {
    let text = child(node, name)?.text().unwrap_or_default().trim();
    text.parse().ok().filter(|v: &f32| v.is_finite()).ok_or_else(|| format!("<{name}> is `{text}`, not a number"))
}

impl Dataset for Voc {
    fn len(&self) -> usize {
        self.boxes.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn get(&self, index: usize, _: &mut Random, sample: &mut Sample) -> Result<()> {
        self.files.read(index, sample)?;
        let [_, h, w] = sample.picture.size;
        if let Some(b) = self.boxes[index].iter().find(|b| b.rect.right > w as f32 || b.rect.bottom > h as f32) {
            let problem = format!("is {w}x{h}, but a box goes to {}, {}", b.rect.right, b.rect.bottom);
            return Err(fault(&self.files.paths[index], problem));
        }
        sample.boxes.extend_from_slice(&self.boxes[index]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat, Luma};

    use super::*;
    use crate::data::test::Folder;

    fn write(folder: &Folder, name: &str, objects: &str) {
        folder.write(&format!("Annotations/{name}.xml"), format!("<annotation>{objects}</annotation>").as_bytes());
        let mut out = std::io::Cursor::new(Vec::new());
        GrayImage::from_pixel(8, 6, Luma([9])).write_to(&mut out, ImageFormat::Png).unwrap();
        folder.write(&format!("JPEGImages/{name}.png"), &out.into_inner());
    }

    fn object(class: &str, [a, b, c, d]: [&str; 4], difficult: u8) -> String {
        let rect = format!("<xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>");
        format!("<object><name>{class}</name><difficult>{difficult}</difficult><bndbox>{rect}</bndbox></object>")
    }

    #[test]
    fn boxes_come_with_their_pictures() {
        let folder = Folder::new("voc");
        write(&folder, "a", &[object("dog", ["1", "1", "2", "2"], 0), object("cat", ["3", "2", "8", "6"], 1)].concat());
        write(&folder, "b", &object("ant", ["1", "1", "1", "1"], 0));
        folder.write("ImageSets/Main/train.txt", b"a\n");
        let d = Voc::open(folder.path(), "train").unwrap();
        assert_eq!((d.len(), d.classes()), (1, &["ant", "cat", "dog"].map(String::from)[..]));
        let mut s = Sample::default();
        d.get(0, &mut Random::new(&[]), &mut s).unwrap();
        assert_eq!((s.picture.size, s.boxes.len()), ([3, 6, 8], 2));
        assert_eq!(s.boxes[0], LabelledBox { class: 2, rect: Rect::new(0.0, 0.0, 2.0, 2.0), difficult: false });
        assert_eq!(s.boxes[1], LabelledBox { class: 1, rect: Rect::new(2.0, 1.0, 8.0, 6.0), difficult: true });
    }

    #[test]
    fn faults_are_named() {
        let folder = Folder::new("voc-faults");
        let text = |objects: &str| {
            write(&folder, "x", objects);
            folder.write("ImageSets/Main/l.txt", b"x");
            let mut s = Sample::default();
            let opened = Voc::open(folder.path(), "l").and_then(|d| d.get(0, &mut Random::new(&[]), &mut s));
            opened.unwrap_err().to_string()
        };
        assert!(text("<object><name>a</name></object>").contains("x.xml: object 0: has no <bndbox>"));
        assert!(text(&object("a", ["1", "1", "two", "2"], 0)).contains("<xmax> is `two`, not a number"));
        assert!(text(&object("a", ["5", "1", "4", "2"], 0)).contains("has no area"));
        assert!(text(&object("a", ["1", "1", "9", "2"], 0)).contains("x.png: is 8x6, but a box goes to 9, 2"));
        assert!(text("<object>").contains("no XML"));
        folder.write("Annotations/x.xml", b"<html/>");
        folder.write("ImageSets/Main/l.txt", b"x y");
        assert!(Voc::open(folder.path(), "l").unwrap_err().to_string().contains("its root is <html>"));
        write(&folder, "x", "");
        folder.write("Annotations/y.xml", b"<annotation/>");
        let e = Voc::open(folder.path(), "l").unwrap_err().to_string();
        assert!(e.contains("l.txt: names `y`"), "{e}");
        assert!(Voc::open(folder.path(), "none").unwrap_err().to_string().contains("none.txt"));
    }
}
