"""What a certificate tells: numbers for a program, curves for a picture, an error for a test."""
