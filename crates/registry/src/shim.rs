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
