"""What every version was made from, who may say so, and how it is taken back: records, proof, assets, restoring."""
