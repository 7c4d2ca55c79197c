{
 "algorithm": "Ed25519",
 "public_key": "LSErTbrBNZEkmFvxeUvu7Fvi4HIbyRc3J4BzkI+xd3Q=",
 "signature": "WmLLAoTOlM1gN+cUMjl6rMq0hCeW2Mbw6rI31Nun8RLF52jU6o/Bfpfvf9B8iagOvLebCdQHZDns4IJoVhFlAw=="
}
