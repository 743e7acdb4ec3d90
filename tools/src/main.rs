//! The program `swath`.
fn main() {
    println!("{:?}", swath::Cpu::detect());
}
