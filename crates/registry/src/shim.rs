pub mod apply {
    use apimachinery::Status;
    use schema::*;
    use serde_json::Value;
    pub fn update(_s: &Schema, _t: TypeId, _l: Option<&Value>, _n: &mut Value, _m: &str, _sub: &str, _now: &str) {}
    pub fn apply(
        _s: &Schema,
        _t: TypeId,
        _l: Option<&Value>,
        p: &Value,
        _m: &str,
        _f: bool,
        _sub: &str,
        _now: &str,
    ) -> Result<Value, Status> {
        Ok(p.clone())
    }
}
pub mod patch {
    use apimachinery::Status;
    use schema::*;
    use serde_json::Value;
    pub fn json(o: &Value, _p: &Value) -> Result<Value, Status> {
        Ok(o.clone())
    }
    pub fn merge(o: &Value, _p: &Value) -> Result<Value, Status> {
        Ok(o.clone())
    }
    pub fn strategic(_s: &Schema, _t: TypeId, o: &Value, _p: &Value) -> Result<Value, Status> {
        Ok(o.clone())
    }
}
