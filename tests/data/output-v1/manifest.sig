{
 "algorithm": "Ed25519",
 "public_key": "vSTjjy6PwyF7CJ45yyKG9mD0ZLmlgTB+vK0ni4dJuFk=",
 "signature": "YTKobHnk6y8x0SgIM2TqEFzC6Nj6u4JzG5M28Ns9U87sR864fKfVh8+fyAj7O0uuiJLgU+Y9eJyeEuyrGdX2Cw=="
}
