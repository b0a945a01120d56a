package gormstore

import (
	"database/sql"
	"errors"
	"fmt"
)

// integer returns the target of a column with an integer. database/sql itself would convert most
// integers to text and back.
func integer[T ~int32 | ~int64 | ~uint8 | ~uint16](into *T) sql.Scanner { return intoInteger[T]{into} }

type intoInteger[T ~int32 | ~int64 | ~uint8 | ~uint16] struct{ into *T }

// Scan implements sql.Scanner.
func (i intoInteger[T]) Scan(value any) error {
	n, ok := value.(int64)
	if !ok {
		var other sql.Null[int64] // some databases return sums as text
		if err := other.Scan(value); err != nil {
			return err
		}
		if !other.Valid {
			return errors.New("the value is NULL, want an integer")
		}
		n = other.V
	}
	if *i.into = T(n); int64(*i.into) != n {
		return fmt.Errorf("the value is %d, want a number that fits %T", n, *i.into)
	}
	return nil
}
