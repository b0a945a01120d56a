package ingest

// Evaluation is a row of a batch as it is sent: one item of flagEvaluations in the body of POST /datar/evaluations. Members
// that it does not have are ignored.
type Evaluation struct {
	// Timestamp is the same as FirstEvaluation. It is not used.
	Timestamp  int64       `json:"timestamp,omitempty"`
	Flag       *Identifier `json:"flag,omitempty"`
	Variant    *Identifier `json:"variant,omitempty"`
	Allocation *Identifier `json:"allocation,omitempty"`
	// FirstEvaluation and LastEvaluation are in Unix milliseconds.
	FirstEvaluation int64 `json:"first_evaluation,omitempty"`
	LastEvaluation  int64 `json:"last_evaluation,omitempty"`
	EvaluationCount int64 `json:"evaluation_count,omitempty"`
	// RuntimeDefaultUsed and Error are read and not kept.
	RuntimeDefaultUsed bool             `json:"runtime_default_used,omitempty"`
	Error              *EvaluationError `json:"error,omitempty"`
}

// Identifier names a flag, a variant or an allocation by its key.
type Identifier struct {
	Key string `json:"key,omitempty"`
}

// EvaluationError says what went wrong in the application.
type EvaluationError struct {
	Message string `json:"message,omitempty"`
}

// Row returns what is counted of the row; nil, as a null in the array, gives one that is refused for its flag.
func (e *Evaluation) Row() Row {
	if e == nil {
		return Row{}
	}
	return Row{
		FlagKey: e.Flag.key(), VariantKey: e.Variant.key(), AllocationKey: e.Allocation.key(),
		First: e.FirstEvaluation, Last: e.LastEvaluation, Count: e.EvaluationCount,
	}
}

func (i *Identifier) key() string {
	if i == nil {
		return ""
	}
	return i.Key
}
