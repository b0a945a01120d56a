package eval

// Reasons of OpenFeature.
const (
	OpenFeatureDefault        = "DEFAULT"
	OpenFeatureDisabled       = "DISABLED"
	OpenFeatureStatic         = "STATIC"
	OpenFeatureSplit          = "SPLIT"
	OpenFeatureTargetingMatch = "TARGETING_MATCH"
	OpenFeatureError          = "ERROR"
)

// OpenFeatureReason says in OpenFeature's terms why the grant is given.
func (g Grant) OpenFeatureReason() string {
	switch {
	case g.ByBucket:
		return OpenFeatureSplit
	case g.Static:
		return OpenFeatureStatic
	default:
		return OpenFeatureTargetingMatch
	}
}

// OpenFeatureReason says in OpenFeature's terms how the evaluation ended.
func (r *Result) OpenFeatureReason() string {
	switch r.Reason {
	case Matched:
		return r.given.grant().OpenFeatureReason()
	case FlagDisabled:
		return OpenFeatureDisabled
	case NoMatch, NoSegments:
		return OpenFeatureDefault
	default:
		return OpenFeatureError
	}
}
