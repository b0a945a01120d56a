package main

import "io"

func measureRefresh(options, string, io.Writer) error { return nil }
