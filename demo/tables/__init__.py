"""One file a table of measurements; each says what is measured and has main(argv). ./scripts/demo --table NAME"""
